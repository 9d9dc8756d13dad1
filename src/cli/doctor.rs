//! `kairos-identity doctor`: checks the whole deployment, and says for each part what is well and what to do.
//!
//! It runs the checks of the start of `serve` and reports what the start would refuse or warn of, and what
//! would not work after it. It creates no database and no key. Its check that the database can be written
//! changes no row. In a SQLite file, it makes the number greater by which a service notices that the file was
//! overwritten, and moves the WAL into the file. The primary of replicas gets a row of the kind by which a
//! service recognizes them.

use std::{io, path::Path, pin::pin, time::Duration};

use clap::Args;
use tokio::time::timeout;

use super::{
    Failure, healthcheck,
    list::{Field, FormatFlag, List},
    output::print_error,
    reason,
    serve::{self, Port},
    signing, store,
};
use crate::{
    access_token::ISSUED_AHEAD_MAX,
    clock::Clock,
    config::{DatabaseUrl, MailUrl, ServeFlags, Settings, Sources},
    database::DatabaseError,
    store::{Schema, Store},
    telemetry::with_warnings,
};

/// The longest difference between the clock of PostgreSQL and that of this machine that is no finding.
/// Stored times come from the clocks of the instances; PostgreSQL's shows whether they agree.
const CLOCK_DIFFERENCE_WARNED: Duration = Duration::from_secs(1);

/// From this difference on, an instance refuses the access tokens of another one.
const CLOCK_DIFFERENCE_MAX: Duration = ISSUED_AHEAD_MAX;

/// A check that takes longer is announced.
const ANNOUNCED_AFTER: Duration = Duration::from_secs(2);

/// Free space of the disk of a SQLite file below which there is a warning.
const DISK_FREE_WARNED: u64 = 1 << 30;

/// Free space of the disk of a SQLite file below which a day of work may not fit.
const DISK_FREE_MIN: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    format: FormatFlag,
    #[command(flatten)]
    pub(super) flags: ServeFlags,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// All is well.
    Ok,
    /// The service starts, but an operator should know this.
    Warning,
    /// The service does not start, or does not do all that the settings ask for.
    Failed,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What a check found, in the order of the report.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
}

/// All findings so far.
#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, check: &'static str, status: Status, detail: impl Into<String>) {
        self.0.push(Finding { check, status, detail: detail.into() });
    }

    /// Runs a check, and adds what it refuses and what it warns of, or else `well` of its result. Returns the
    /// result of a check that refuses nothing.
    async fn run<T>(
        &mut self,
        check: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
        well: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (result, warnings) = announced(check, with_warnings(work)).await;
        let is_warned = !warnings.is_empty();
        for warning in warnings {
            self.add(check, Status::Warning, warning);
        }
        match result {
            Ok(value) => {
                if !is_warned {
                    self.add(check, Status::Ok, well(&value));
                }
                Some(value)
            }
            Err(failure) => {
                self.add(check, Status::Failed, failure);
                None
            }
        }
    }
}

/// Runs a check, and says on standard error that it is under way if it takes long.
async fn announced<T>(check: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(ANNOUNCED_AFTER, work.as_mut()).await {
        return done;
    }
    // The report does not depend on this line.
    let _ = print_error(format!("doctor: still checking: {check}"));
    work.await
}

impl Doctor {
    pub(super) async fn run(self, settings: &Settings, sources: &Sources) -> Result<(), Failure> {
        let mut report = Report::default();
        check_settings(&mut report, settings, sources);
        check_files(&mut report, settings).await;
        check_ports(&mut report, settings).await;
        check_mail(&mut report, settings).await;
        check_database(&mut report, settings).await;
        let mut list = List::new(self.format, ["check", "status", "detail"]);
        for Finding { check, status, detail } in &report.0 {
            let detail = sources.with_origin(detail);
            if list.add([Field::text(check), Field::text(status.name()), Field::text(detail)])? {
                break;
            }
        }
        list.finish()?;
        match report.0.iter().filter(|finding| finding.status == Status::Failed).count() {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} findings are failures", report.0.len())),
        }
    }
}

/// Checks the values of the settings against each other.
fn check_settings(report: &mut Report, settings: &Settings, sources: &Sources) {
    let before = report.0.len();
    if let Err(error) = settings.check_for_serve(sources) {
        for rule in error.texts() {
            report.add("settings", Status::Failed, rule);
        }
    }
    for warning in sources.warnings().iter().chain(&settings.warnings(sources)) {
        report.add("settings", Status::Warning, warning);
    }
    if report.0.len() == before {
        report.add("settings", Status::Ok, "no value contradicts another");
    }
}

/// Checks the files that the settings name: what they contain, and who may read and change them.
async fn check_files(report: &mut Report, settings: &Settings) {
    let shown = |path: &Path| path.display().to_string();
    let callers = settings.callers.file.as_deref();
    let gate = async { serve::gate(settings) };
    report
        .run("callers", gate, |_| match callers {
            Some(path) => format!("{} is valid", shown(path)),
            None => "no callers file: every client that reaches the port may call every method".to_owned(),
        })
        .await;
    let certificate = settings.server.tls_cert.as_deref();
    let tls = async { serve::TlsConfigs::load(settings) };
    report
        .run("certificates", tls, |_| match certificate {
            Some(path) => format!("{} is valid now, and its key belongs to it", shown(path)),
            None => "TLS is off".to_owned(),
        })
        .await;
    let templates = async { serve::load_templates(settings) };
    report
        .run("pages", templates, |templates| match templates {
            Some(_) => "the templates of the pages can be rendered".to_owned(),
            None => "the pages are off".to_owned(),
        })
        .await;
}

/// Checks that the ports can be opened, or that the service has them open.
async fn check_ports(report: &mut Report, settings: &Settings) {
    let before = report.0.len();
    let mut running = None;
    for port in Port::all(settings) {
        match port.check() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if running.is_none() {
                    running = Some(Box::pin(healthcheck::check_running(settings)).await);
                }
                if let Some(Err(no_answer)) = &running {
                    let detail = port.failure(&error);
                    let unless = format!("{detail}, unless that program is this service ({no_answer})");
                    report.add("ports", Status::Warning, unless);
                }
            }
            Err(error) => report.add("ports", Status::Failed, port.failure(&error)),
            Ok(()) => {}
        }
    }
    if report.0.len() > before {
        return;
    }
    let addresses: Vec<_> = Port::all(settings).map(|port| port.address.to_string()).collect();
    let addresses = addresses.join(", ");
    report.add(
        "ports",
        Status::Ok,
        match running {
            Some(_) => format!("the service runs at {addresses}"),
            None => format!("{addresses} can be opened"),
        },
    );
}

/// Checks that mails can be delivered: connects to the SMTP server, with TLS and the user, and sends no mail.
async fn check_mail(report: &mut Report, settings: &Settings) {
    let checked = Box::pin(async {
        match settings.mail.url {
            MailUrl::Folder(_) => serve::check_mail(settings),
            MailUrl::Smtp { .. } => {
                let connected = serve::transport(settings)?.connect().await;
                connected.map_err(|reason| format!("mail.url: {reason}"))
            }
        }
    });
    report
        .run("mail", checked, |()| match &settings.mail.url {
            MailUrl::Folder(path) => format!("mails can be written to the folder {}", path.display()),
            url @ MailUrl::Smtp { .. } => format!("{url} accepts connections, and the user if there is one"),
        })
        .await;
}

/// Checks the database, and what can be checked only with it.
async fn check_database(report: &mut Report, settings: &Settings) {
    let url = &settings.database.url;
    let opened = Box::pin(async {
        if !serve::has_database(settings)? {
            return Ok(None);
        }
        let store = store::open_to_serve(settings)?;
        let schema = serve::check_schema(settings, &store).await?;
        check_use(&store, &schema)
            .await
            .map_err(|error| format!("database.url: {url}: {}", reason(error)))?;
        Ok(Some((store, schema)))
    });
    let opened = report
        .run("database", opened, |opened| match opened {
            None => format!("{url} does not exist yet: serve creates it"),
            Some((_, Schema::Behind(missing))) => {
                format!("{url} can be written; serve applies {} migrations at its start", missing.len())
            }
            Some(_) => format!("{url} can be written, and has the schema of this release"),
        })
        .await;
    let Some(opened) = opened else { return };
    let Some((store, schema)) = opened else {
        let key = Box::pin(signing::check_key(settings, None));
        report.run("secret key", key, |key| secret_key_detail(key.is_some())).await;
        return;
    };
    if schema == Schema::Current {
        let keys = Box::pin(serve::check_keys(settings, &store));
        report.run("secret key", keys, |has_key| secret_key_detail(*has_key)).await;
    }
    match url {
        DatabaseUrl::Sqlite(path) => check_disk(report, &store, path),
        DatabaseUrl::Postgres(_) => check_server(report, &store).await,
    }
}

/// Checks that the database can be written, and that users can be read, as the health of the service does.
async fn check_use(store: &Store, schema: &Schema) -> Result<(), DatabaseError> {
    if *schema == Schema::Current {
        store.check_logins().await?;
    }
    store.check_writes().await
}

fn secret_key_detail(has_key: bool) -> String {
    if has_key {
        "it decrypts the secrets in the database".to_owned()
    } else {
        "there is no key yet: serve creates it beside the database".to_owned()
    }
}

/// Checks the free space of the disk of a SQLite file.
fn check_disk(report: &mut Report, store: &Store, path: &Path) {
    let Some(free) = store.disk_free() else { return };
    let status = match free {
        DISK_FREE_WARNED.. => Status::Ok,
        DISK_FREE_MIN.. => Status::Warning,
        _ => Status::Failed,
    };
    report.add("disk", status, format!("{} MiB are free beside {}", free >> 20, path.display()));
}

/// Checks what a PostgreSQL server promises: its settings, its clock, and the replicas.
async fn check_server(report: &mut Report, store: &Store) {
    let settings = Box::pin(async {
        for warning in store.server_warnings().await.map_err(reason)? {
            tracing::warn!("{warning}");
        }
        Ok(())
    });
    report.run("server", settings, |()| "no setting can lose an acknowledged write".to_owned()).await;
    let clock = Clock::system();
    let began = clock.now();
    match store.server_time().await {
        Ok(None) => {}
        Ok(Some(server)) => {
            // The server read its clock somewhere within the call.
            let middle = began.plus(clock.now().since(began) / 2);
            let difference = server.since(middle).max(middle.since(server));
            let status = match difference {
                _ if difference <= CLOCK_DIFFERENCE_WARNED => Status::Ok,
                _ if difference <= CLOCK_DIFFERENCE_MAX => Status::Warning,
                _ => Status::Failed,
            };
            let seconds = difference.as_secs_f64();
            report.add(
                "clock",
                status,
                format!("the clock of this machine and that of PostgreSQL differ by {seconds:.3} s"),
            );
        }
        Err(error) => report.add("clock", Status::Failed, reason(error)),
    }
    for replica in announced("replica", store.replicas_after_start()).await {
        let address = replica.address;
        match replica.excluded_because {
            None => report.add("replica", Status::Ok, format!("{address} is current and serves look-ups")),
            Some(reason) => {
                report.add("replica", Status::Failed, format!("{address} serves no look-ups: {reason}"));
            }
        }
    }
}
