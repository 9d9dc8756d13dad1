//! `kairos-identity doctor`: checks the whole deployment, and says for each part what is well and what to do.
//!
//! It runs the checks of the start of `serve` and reports what the start would refuse or warn of, and what
//! would not work after it. It creates no database and no key. Its check that the database can be written
//! changes no row. In a SQLite file, it increments `user_version` (`database/sqlite_file.rs`) and moves the
//! WAL into the file. On a primary with replicas, it writes a heartbeat (`database/heartbeat.rs`).

use std::{io, path::Path, pin::pin, time::Duration};

use clap::Args;
use tokio::time::timeout;

use super::{
    Failure,
    healthcheck::{self, ServingStatus},
    list::{Field, FormatFlag, List},
    output::print_error,
    reason,
    serve::{self, Port},
    server_clock::difference_from_server,
    signing, store,
};
use crate::{
    access_token::ISSUED_AHEAD_MAX,
    clock::Clock,
    config::{DatabaseUrl, MailUrl, ServeFlags, Settings, Sources},
    database::DatabaseError,
    publish,
    server::{Workers, open_files, open_files_needed, worker_count},
    store::{Schema, Store, disk_free},
    telemetry::with_warnings,
};

/// The longest difference between the clock of PostgreSQL and that of this machine that is well.
const CLOCK_DIFFERENCE_OK_MAX: Duration = Duration::from_secs(1);

/// The longest difference that is only warned of. Beyond it, an instance may refuse the access tokens of
/// another one.
const CLOCK_DIFFERENCE_WARNED_MAX: Duration = ISSUED_AHEAD_MAX;

/// A check that takes longer is announced.
const ANNOUNCED_AFTER: Duration = Duration::from_secs(2);

/// More than any mail of the service has, in bytes.
const MAIL_BYTES: usize = 64 << 10;

/// Free space of the disk of a SQLite file, in bytes (1 GiB), below which there is a warning.
const DISK_FREE_WARNED: u64 = 1 << 30;

/// Free space of the disk of a SQLite file, in bytes (64 MiB), below which a day of work may not fit.
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

/// What a check found: the columns of the report.
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

    /// True if the settings with these keys, and of these sections, have a valid value. Otherwise adds that
    /// the check is not possible.
    fn can_check(&mut self, check: &'static str, settings: &[&str], sources: &Sources) -> bool {
        let invalid = sources.first_invalid(settings);
        if let Some(key) = invalid {
            self.add(check, Status::Warning, format!("not checked, since the value of {key} is not known"));
        }
        invalid.is_none()
    }

    /// Runs a check, and adds its error and the warnings that it logs, or else `ok_detail` of its result.
    /// Returns the result of a check that did not fail.
    async fn run<T>(
        &mut self,
        check: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
        ok_detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (result, warnings) = announced(check, with_warnings(work)).await;
        let is_warned = !warnings.is_empty();
        for warning in warnings {
            self.add(check, Status::Warning, warning);
        }
        match result {
            Ok(value) => {
                if !is_warned {
                    self.add(check, Status::Ok, ok_detail(&value));
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
        check_files(&mut report, settings, sources).await;
        check_ports(&mut report, settings, sources).await;
        if report.can_check("mail", serve::MAIL, sources) {
            check_mail(&mut report, settings).await;
        }
        if report.can_check("database", serve::DATABASE, sources) {
            check_database(&mut report, settings).await;
        } else {
            check_named_key(&mut report, settings).await;
        }
        let mut list = List::new(self.format, ["check", "status", "detail"]);
        for Finding { check, status, detail } in &report.0 {
            // A finding about the settings alone names the origin itself.
            let detail = if *check == "settings" { detail.clone() } else { sources.with_origin(detail) };
            let reader_has_gone =
                list.add([Field::text(check), Field::text(status.name()), Field::text(detail)])?;
            if reader_has_gone {
                break;
            }
        }
        list.finish()?;
        match report.0.iter().filter(|finding| finding.status == Status::Failed).count() {
            0 => Ok(()),
            failures => Err(format!("{failures} of {} findings are failures", report.0.len())),
        }
    }
}

/// Checks the values of the settings against each other.
fn check_settings(report: &mut Report, settings: &Settings, sources: &Sources) {
    let before = report.0.len();
    for finding in settings.findings(sources) {
        report.add("settings", Status::Failed, finding);
    }
    let files_needed = open_files_needed(
        settings.server.connections_max.as_usize(),
        settings.http.connections_max.as_usize(),
        worker_count(settings.server.threads.as_usize()),
    );
    if let Some(limit) = open_files::limit().filter(|limit| *limit < files_needed) {
        let detail = format!(
            "the process may open {limit} files, and the limits of connections need {files_needed}: raise `ulimit -n` \
             (LimitNOFILE= of systemd), or serve lowers them"
        );
        report.add("settings", Status::Warning, detail);
    }
    for warning in sources.warnings().iter().chain(&settings.warnings(sources)) {
        report.add("settings", Status::Warning, warning);
    }
    if report.0.len() == before {
        report.add("settings", Status::Ok, "each value is valid, and none contradicts another");
    }
}

/// Checks the files that the settings name: what they contain, and who may read and change them.
async fn check_files(report: &mut Report, settings: &Settings, sources: &Sources) {
    let shown = |path: &Path| path.display().to_string();
    if report.can_check("callers", serve::CALLERS, sources) {
        let gate = async { serve::gate(settings) };
        let detail = |_: &_| match settings.callers.file.as_deref() {
            Some(path) => format!("{} is valid", shown(path)),
            None => "no callers file: every client that reaches the port has every right".to_owned(),
        };
        report.run("callers", gate, detail).await;
    }
    if report.can_check("certificates", serve::CERTIFICATES, sources) {
        let unreadable = serve::unreadable_tls_files(settings);
        if unreadable.is_empty() {
            let tls = async { serve::TlsConfigs::load(settings) };
            let detail = |_: &_| match (&settings.server.tls_cert, &settings.server.tls_key) {
                (Some(path), Some(_)) => {
                    format!("{} is valid now, and its key belongs to it", shown(path))
                }
                _ => "TLS is off".to_owned(),
            };
            report.run("certificates", tls, detail).await;
        }
        for failure in unreadable {
            report.add("certificates", Status::Failed, failure);
        }
    }
    if report.can_check("pages", serve::PAGES, sources) {
        let templates = async { serve::load_templates(settings) };
        let detail = |templates: &Option<_>| match templates {
            Some(_) => "the templates of the pages can be rendered".to_owned(),
            None => "the pages are off".to_owned(),
        };
        report.run("pages", templates, detail).await;
    }
}

/// Checks that the ports can be opened, or that the service has them open.
async fn check_ports(report: &mut Report, settings: &Settings, sources: &Sources) {
    let (mut free, mut in_use) = (Vec::new(), Vec::new());
    for port in Port::all(settings) {
        if !report.can_check("ports", &[port.setting], sources) {
            continue;
        }
        match port.check() {
            Ok(()) => free.push(port.address.to_string()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => in_use.push((port, error)),
            Err(error) => report.add("ports", Status::Failed, port.failure(&error)),
        }
    }
    if !free.is_empty() {
        report.add("ports", Status::Ok, format!("{} can be opened", free.join(", ")));
    }
    if in_use.is_empty() {
        return;
    }
    let answer = announced("ports", Box::pin(healthcheck::ask_running(settings))).await;
    for (port, error) in in_use {
        let is_api_port = port.address == settings.server.listen;
        let (status, detail) = match &answer {
            Ok(ServingStatus::Serving) if is_api_port => {
                (Status::Ok, format!("a service answers at {} and is healthy", port.address))
            }
            Ok(health) if is_api_port => {
                let (address, health) = (port.address, health.as_str_name());
                let detail =
                    format!("the service at {address} says {health}: its log and the other checks say why");
                (Status::Failed, detail)
            }
            Ok(_) => (Status::Ok, format!("{} is in use, as it is while the service runs", port.address)),
            // With TLS, the service may not answer without the name in its certificate.
            Err(reason) if settings.server.tls_cert.is_some() => {
                (Status::Warning, format!("{}, unless it is this service ({reason})", port.failure(&error)))
            }
            Err(reason) => {
                let detail =
                    format!("{}, unless it is this service and hangs ({reason})", port.failure(&error));
                (Status::Failed, detail)
            }
        };
        report.add("ports", status, detail);
    }
}

/// Checks that mails can be delivered: connects to the SMTP server, with TLS and the user, and sends no mail.
async fn check_mail(report: &mut Report, settings: &Settings) {
    let checked = Box::pin(async {
        match settings.mail.url {
            MailUrl::Folder(ref path) => {
                serve::check_mail(settings)?;
                let room = publish::check_room(path, MAIL_BYTES);
                room.map_err(|error| format!("mail.url: {error}"))
            }
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
    if let DatabaseUrl::Sqlite(path) = url {
        check_disk(report, path);
    }
    let mut opened = None;
    let check = Box::pin(async {
        if !serve::has_database(settings)? {
            return Ok(format!("{url} does not exist yet: serve creates it"));
        }
        let store = store::open_to_serve(settings, &Workers::current())?;
        let schema = serve::check_schema(settings, &store).await?;
        let used = check_use(&store, &schema).await;
        let (_, schema) = opened.insert((store, schema));
        used.map_err(|error| format!("database.url: {url}: {}{}", reason(&error), way_out(&error)))?;
        Ok(match schema {
            Schema::Behind(missing) => {
                format!("{url} can be written; serve applies {} migrations at its start", missing.len())
            }
            Schema::Compatible(_) => {
                format!(
                    "{url} can be written, and has the schema of a newer release, which this release can use"
                )
            }
            _ => format!("{url} can be written, and has the schema of this release"),
        })
    });
    let is_usable = report.run("database", check, Clone::clone).await.is_some();
    match &opened {
        Some((store, schema)) if is_usable => check_keys(report, settings, store, schema).await,
        None if is_usable => {
            let key = Box::pin(signing::check_key(settings, None));
            report.run("secret key", key, |key| secret_key_detail(key.is_some())).await;
        }
        _ => check_named_key(report, settings).await,
    }
    if let (Some((store, _)), DatabaseUrl::Postgres(_)) = (&opened, url) {
        check_server(report, store).await;
    }
}

/// Checks that the secret key decrypts what the database holds.
async fn check_keys(report: &mut Report, settings: &Settings, store: &Store, schema: &Schema) {
    let keys = Box::pin(async {
        let has_key = serve::check_keys(settings, store, schema).await?;
        match settings.database.url {
            DatabaseUrl::Postgres(_) if !has_key => {
                Err("secret.key-file must be set with PostgreSQL".to_owned())
            }
            _ => Ok(has_key),
        }
    });
    report.run("secret key", keys, |has_key| secret_key_detail(*has_key)).await;
}

/// Checks the key that secret.key-file names, if it is set, without the database.
async fn check_named_key(report: &mut Report, settings: &Settings) {
    if settings.secret.key_file.is_some() {
        let key = Box::pin(serve::check_named_key(settings));
        report.run("secret key", key, |()| "it can be read; what it decrypts is unknown".to_owned()).await;
    }
}

/// Returns what to do about an error of PostgreSQL that does not say it.
fn way_out(error: &DatabaseError) -> &'static str {
    // query_canceled, lock_not_available
    if ["SQLSTATE 57014", "SQLSTATE 55P03"].iter().any(|state| error.chain().contains(state)) {
        ": another session holds a lock, or the server is too slow: look at pg_stat_activity and pg_locks"
    } else {
        ""
    }
}

/// Checks that the database can be written, and that users can be read, as the health of the service does.
async fn check_use(store: &Store, schema: &Schema) -> Result<(), DatabaseError> {
    if schema.is_usable() {
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
fn check_disk(report: &mut Report, path: &Path) {
    let Some(free) = disk_free(path) else { return };
    let status = match free {
        DISK_FREE_WARNED.. => Status::Ok,
        DISK_FREE_MIN.. => Status::Warning,
        _ => Status::Failed,
    };
    let detail = format!("{} MiB are free beside {}", free >> 20, path.display());
    let way_out =
        if status == Status::Ok { "" } else { ": free space, or move the database to a larger disk" };
    report.add("disk", status, format!("{detail}{way_out}"));
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
    let rights = Box::pin(store::require_rights(store));
    report.run("rights", rights, |()| "the role may do all that the service does".to_owned()).await;
    match announced("clock", difference_from_server(store, &Clock::system())).await {
        Ok(None) => {}
        Ok(Some(difference)) => {
            let status = match difference.amount {
                amount if amount <= CLOCK_DIFFERENCE_OK_MAX => Status::Ok,
                amount if amount <= CLOCK_DIFFERENCE_WARNED_MAX => Status::Warning,
                _ => Status::Failed,
            };
            let way_out = if status == Status::Ok { "" } else { ": synchronize both (NTP)" };
            report.add("clock", status, format!("{difference}{way_out}"));
        }
        Err(error) => report.add("clock", Status::Failed, reason(error)),
    }
    for replica in announced("replica", store.replicas_after_start()).await {
        let address = replica.address;
        match replica.excluded_because {
            None => report.add("replica", Status::Ok, format!("{address} is current and serves look-ups")),
            Some(reason) => {
                report.add(
                    "replica",
                    Status::Failed,
                    format!("{address} serves no look-ups: {reason} (docs/high-availability.md)"),
                );
            }
        }
    }
}
