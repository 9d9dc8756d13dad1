//! `kairos-identity import`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tokio_util::sync::CancellationToken;

use super::{Failure, progress::Shown, reason, signals::Signals, signing, store};
use crate::{
    callers::COMMAND_LINE,
    clock::Clock,
    config::{DatabaseUrl, Settings},
    domain::Origin,
    entropy::Entropy,
    import::{
        Import as Importer, ImportOptions, OnEmailConflict, OnTokenConflict, OnUsernameConflict, Outcome,
        ROWS_AT_ONCE, Report,
    },
    password::{PasswordOptions, Passwords},
    sealing::SealingKey,
    store::{DjangoSource, Store},
};

/// How many plaintext passwords each core hashes between two writes: a kill costs some seconds of work.
const HASHES_PER_CORE: usize = 8;

/// Conflicts that are shown; the report has them all.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take users over from the database of the Django backend
    ///
    /// Keeps auth_token, email, username, is_verified, times and password hashes; hashes plaintext passwords. May be stopped at any time and run
    /// again: it goes on, and takes over what has changed since. docs/moving-from-django.md leads through it.
    Django(Django),
    /// Compare the database of the Django backend with the store, and change nothing
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Django {
    #[command(flatten)]
    between: Between,
    /// Find everything out, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// A new file for the report, with every finding: JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Go on taking over new and changed rows until Ctrl-C or SIGTERM
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,
    /// How long after a look at the source the next one begins, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "follow", value_parser = clap::value_parser!(u64).range(1..=3600))]
    follow_interval: u64,
    /// Two rows with one email: import nothing; keep the verified one (of several, the older); or keep the older one
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = email_conflicts())]
    on_email_conflict: OnEmailConflict,
    /// Two rows with one username, or an empty one: import nothing, or put the row's id behind the name of all but the first
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = username_conflicts())]
    on_username_conflict: OnUsernameConflict,
    /// Two rows with one auth_token: import nothing, or give all but one (the verified, then the older) a new one
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = token_conflicts())]
    on_token_conflict: OnTokenConflict,
}

#[derive(Debug, Args)]
struct Between {
    /// The database of the Django backend, which is only read: sqlite:///folder/file or postgres://user:password@host/database
    #[arg(long, value_name = "URL")]
    from: String,
    /// The store; the same as --database-url
    #[arg(long, value_name = "URL", conflicts_with = "database_url")]
    to: Option<String>,
    /// 32 random bytes in base64, as for `serve`: under them it is remembered which plaintext passwords were hashed
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<String>,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    between: Between,
    /// A new file for the report: JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn email_conflicts() -> impl TypedValueParser<Value = OnEmailConflict> {
    PossibleValuesParser::new(["fail", "keep-verified", "keep-oldest"]).map(|text| match text.as_str() {
        "keep-verified" => OnEmailConflict::KeepVerified,
        "keep-oldest" => OnEmailConflict::KeepOldest,
        _ => OnEmailConflict::Fail,
    })
}

fn username_conflicts() -> impl TypedValueParser<Value = OnUsernameConflict> {
    PossibleValuesParser::new(["fail", "suffix"]).map(|text| match text.as_str() {
        "suffix" => OnUsernameConflict::Suffix,
        _ => OnUsernameConflict::Fail,
    })
}

fn token_conflicts() -> impl TypedValueParser<Value = OnTokenConflict> {
    PossibleValuesParser::new(["fail", "renew"]).map(|text| match text.as_str() {
        "renew" => OnTokenConflict::Renew,
        _ => OnTokenConflict::Fail,
    })
}

impl Import {
    /// The store that the flags name, which stands for the setting.
    pub(super) fn store_url(&self) -> Option<&String> {
        self.between().to.as_ref()
    }

    /// The key that the flags name, which stands for the setting.
    pub(super) fn secret_key_file(&self) -> Option<&String> {
        self.between().secret_key_file.as_ref()
    }

    fn between(&self) -> &Between {
        let (What::Django(Django { between, .. }) | What::Verify(Verify { between, .. })) = &self.what;
        between
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        match self.what {
            What::Django(django) => django.run(settings).await,
            What::Verify(verify) => verify.run(settings).await,
        }
    }
}

impl Django {
    async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let report = ReportFile::make(self.report.as_deref())?;
        let mut source = open_source(settings, &self.between.from).await?;
        let store = if self.dry_run { existing(settings).await? } else { Some(to_fill(settings).await?) };
        let import = importer(settings, store, self.options())?;

        let stop = CancellationToken::new();
        let mut signals = Signals::listen()?;
        let mut progress = Shown::new(import.clock.clone());
        let run = import.run(&mut source, &mut progress, &stop);
        tokio::pin!(run);
        let mut outcome = tokio::select! {
            outcome = &mut run => outcome,
            signal = signals.next() => {
                tracing::info!("{signal}: finishes what it is at");
                stop.cancel();
                run.await
            }
        }
        .map_err(reason)?;

        report.map_or(Ok(()), |report| report.write(&mut outcome))?;
        show(&outcome.report);
        show_conflicts(&mut outcome, self.report.as_deref())?;
        self.judge(&outcome.report)
    }

    fn options(&self) -> ImportOptions {
        ImportOptions {
            on_email_conflict: self.on_email_conflict,
            on_username_conflict: self.on_username_conflict,
            on_token_conflict: self.on_token_conflict,
            dry_run: self.dry_run,
            follow_every: self.follow.then(|| Duration::from_secs(self.follow_interval)),
            hashes_at_once: HASHES_PER_CORE * cores(),
        }
    }

    fn judge(&self, report: &Report) -> Result<(), Failure> {
        let open = report.open_conflicts();
        if open > 0 {
            let done = if report.imported + report.updated == 0 {
                "nothing was imported"
            } else {
                "the others were imported"
            };
            return Err(format!(
                "{open} conflicts are open, and {done}: decide with --on-email-conflict, --on-username-conflict and --on-token-conflict, or \
                 change the rows"
            ));
        }
        if self.dry_run {
            println!("dry run: nothing was written");
            return Ok(());
        }
        if !report.complete {
            return Err("not all rows are imported: run the same command again, which goes on".to_owned());
        }
        match &report.checksums {
            Some(checksums) if !checksums.agree() => {
                Err("the checksums of source and store differ".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Verify {
    async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let report = ReportFile::make(self.report.as_deref())?;
        let mut source = open_source(settings, &self.between.from).await?;
        let store = store::open_current(settings).await?;
        let options = ImportOptions {
            on_email_conflict: OnEmailConflict::Fail,
            on_username_conflict: OnUsernameConflict::Fail,
            on_token_conflict: OnTokenConflict::Fail,
            dry_run: true,
            follow_every: None,
            hashes_at_once: 1,
        };
        let import = importer(settings, Some(store), options)?;
        let mut progress = Shown::new(import.clock.clone());

        let mut comparison = import.verify(&mut source, &mut progress).await.map_err(reason)?;

        report.map_or(Ok(()), |report| report.write(&mut comparison.outcome))?;
        show(&comparison.outcome.report);
        if comparison.uncompared > 0 {
            println!(
                "note       {} plaintext passwords were not compared: that takes the --secret-key-file that they were imported with",
                comparison.uncompared
            );
        }
        if comparison.agrees() {
            println!("source and store agree");
            return Ok(());
        }
        Err(format!(
            "source and store differ: {} rows have no user, {} have changed since they were imported",
            comparison.missing, comparison.stale
        ))
    }
}

async fn open_source(settings: &Settings, from: &str) -> Result<DjangoSource, Failure> {
    let url = store::url("--from", from)?;
    let options = store::options(settings, "--from", &url, false)?;
    DjangoSource::open(&options).await.map_err(|error| format!("--from {url}: {}", reason(error)))
}

async fn to_fill(settings: &Settings) -> Result<Store, Failure> {
    let store = store::open_or_make(settings).await?;
    store::require_current(settings, &store).await?;
    Ok(store)
}

/// The store, if it is there: a dry run makes none.
async fn existing(settings: &Settings) -> Result<Option<Store>, Failure> {
    if let DatabaseUrl::Sqlite(path) = &settings.database.url
        && !path.exists()
    {
        return Ok(None);
    }
    let store = store::open(settings, false)?;
    if store.is_new().await.map_err(|error| store::at(settings, &error))? {
        return Ok(None);
    }
    store::require_current(settings, &store).await?;
    Ok(Some(store))
}

fn importer(settings: &Settings, store: Option<Store>, options: ImportOptions) -> Result<Importer, Failure> {
    let entropy = Entropy::system();
    let writes = store.is_some() && !options.dry_run;
    let kept = kept_key(settings, writes, &entropy)?;
    if kept.is_none() && writes {
        tracing::warn!(
            "Without --secret-key-file it is not remembered which plaintext passwords were hashed: another run has to hash them again to see \
             whether they have changed"
        );
    }
    let passwords = PasswordOptions {
        cost: settings.password.cost.get(),
        threads: 0,
        queue_length: 2 * (ROWS_AT_ONCE + options.hashes_at_once),
    };
    Ok(Importer {
        store,
        passwords: Passwords::start(passwords, entropy.clone()).map_err(reason)?,
        key_is_kept: kept.is_some(),
        key: Arc::new(kept.unwrap_or_else(|| SealingKey::passing(&entropy))),
        clock: Clock::system(),
        entropy,
        origin: Origin::local(COMMAND_LINE),
        options,
    })
}

/// The key of the service, if there is one: PostgreSQL does without, and a command that writes nothing makes none.
fn kept_key(settings: &Settings, may_make: bool, entropy: &Entropy) -> Result<Option<SealingKey>, Failure> {
    let is_beside = match &settings.database.url {
        DatabaseUrl::Sqlite(path) => may_make || signing::key_beside(path).exists(),
        DatabaseUrl::Postgres(_) => false,
    };
    if settings.secret.key_file.is_none() && !is_beside {
        return Ok(None);
    }
    signing::sealing_key(settings, entropy).map(Some)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A new file for a report, made before the work so that it has its place; without a report it is gone again.
struct ReportFile<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
}

impl<'a> ReportFile<'a> {
    /// For its owner alone: it names people.
    fn make(path: Option<&'a Path>) -> Result<Option<Self>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("--report {} is there already", path.display()),
            _ => format!("--report {}: {error}", path.display()),
        })?;
        Ok(Some(Self { path, file: Some(BufWriter::new(file)) }))
    }

    fn write(mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        outcome
            .write(&mut file)
            .map_err(|error| format!("--report {}: {}", self.path.display(), reason(error)))
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // A report that is not written is not there: the next run can have its name.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn show(report: &Report) {
    println!("schema     {}", report.schema);
    println!("rows       {}", report.rows);
    let line = |title: &str, counts: &std::collections::BTreeMap<String, u64>| {
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !counts.is_empty() {
            println!("{title:10} {}", counts.join(", "));
        }
    };
    line("states", &report.states);
    line("passwords", &report.passwords);
    line("findings", &report.findings);
    line("open", &report.open);
    println!("written    {} imported, {} updated", report.imported, report.updated);
    for (what, count) in [
        ("changed while they were being written", report.changed_meanwhile),
        ("were taken over and are not in the source any more", report.gone_from_source),
        ("have no times of their own: that of the import is theirs", report.without_times),
    ] {
        if count > 0 {
            println!("note       {count} rows {what}");
        }
    }
    if let Some(checksums) = &report.checksums {
        println!("source     {} ({} users)", checksums.source, checksums.users);
        println!("store      {}", checksums.store);
    }
}

fn show_conflicts(outcome: &mut Outcome, report: Option<&Path>) -> Result<(), Failure> {
    let open = outcome.report.open_conflicts();
    outcome
        .findings(true, SHOWN_MAX, |kind, rows, words| println!("open       {kind}: rows {rows}: {words}"))
        .map_err(reason)?;
    if open > SHOWN_MAX as u64 {
        let all = report
            .map_or_else(|| "--report FILE writes".to_owned(), |path| format!("{} has", path.display()));
        println!("open       … and {} more; {all} them all", open - SHOWN_MAX as u64);
    }
    Ok(())
}
