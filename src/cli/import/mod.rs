//! `kairos-identity import`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

mod parts;
mod report;

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use self::{
    parts::{build_import, cores, open_existing, open_source, open_target},
    report::{ReportFile, print_conflicts, print_report},
};
use super::{
    Failure,
    output::{after_change, print},
    progress::TerminalProgress,
    reason,
    signals::Signals,
    store,
};
use crate::{
    config::Settings,
    import::{ImportOptions, OnEmailConflict, OnTokenConflict, OnUsernameConflict, Report, Stop},
};

/// How many plaintext passwords each core hashes between two writes. If the process is killed, a few seconds
/// of work are lost.
const HASHES_PER_CORE: usize = 8;

/// The longest pause between two rounds of `--follow`: after it, the target is an hour behind its source.
const FOLLOW_INTERVAL_SECONDS_MAX: u64 = 3_600;

#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Import users from the database of a Django backend
    ///
    /// Keeps auth_token, email, username, is_verified, times and password hashes; hashes plaintext passwords.
    /// The command may be stopped at any time. Run it again to continue, and to import what has changed
    /// since. docs/moving-from-django.md is a step-by-step guide.
    Django(Django),
    /// Compare the database of the Django backend with the store, without changing either
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Django {
    #[command(flatten)]
    common: CommonFlags,
    /// Read everything and report conflicts, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write a JSON report with every finding to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep importing new and changed rows until Ctrl-C or SIGTERM
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,
    /// The pause between two rounds of --follow, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", requires = "follow", value_parser = parse_interval)]
    follow_interval: Duration,
    /// Rows with the same email: fail (import nothing), keep-verified (keep the verified row, or the oldest
    /// of several; if none is verified, the oldest row) or keep-oldest (keep the oldest row). The oldest row
    /// is the one with the smallest id
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = email_conflicts())]
    on_email_conflict: OnEmailConflict,
    /// Rows with the same username, an empty one or one of more than 150 characters: fail (import nothing) or
    /// suffix (append the row's id to all of these usernames but the first of several that are the same)
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = username_conflicts())]
    on_username_conflict: OnUsernameConflict,
    /// Rows with the same auth_token: fail (import nothing) or renew (the verified row keeps it, or the
    /// oldest of several; if none is verified, the oldest row; the others get a new one)
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = token_conflicts())]
    on_token_conflict: OnTokenConflict,
}

#[derive(Debug, Args)]
struct CommonFlags {
    /// The database of the Django backend, which is only read: sqlite:///folder/file or
    /// postgres://user:password@host/database
    #[arg(long, value_name = "URL")]
    from: String,
    /// The store of this service; the same as --database-url
    #[arg(long, value_name = "URL", conflicts_with = "database-url")]
    to: Option<String>,
    /// The key file of this service, as for `serve`: 32 random bytes in base64. With this key a later run
    /// recognizes the plaintext passwords that an earlier one has hashed
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<String>,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    common: CommonFlags,
    /// Write a JSON report to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Parses the interval of `--follow-interval`.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=FOLLOW_INTERVAL_SECONDS_MAX).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("expected a whole number of seconds from 1 to {FOLLOW_INTERVAL_SECONDS_MAX}"))
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
    /// Returns the URL of the store, which replaces the setting `database.url`.
    pub(super) fn store_url(&self) -> Option<&String> {
        self.common().to.as_ref()
    }

    /// Returns the path of the key file, which replaces the setting `secret.key-file`.
    pub(super) fn secret_key_file(&self) -> Option<&String> {
        self.common().secret_key_file.as_ref()
    }

    /// Checks the form of the URL of the source.
    pub(super) fn check_source_url(&self) -> Result<(), Failure> {
        store::parse_url("--from", &self.common().from).map(drop)
    }

    /// Returns the flags that both actions have.
    fn common(&self) -> &CommonFlags {
        let (Action::Django(Django { common, .. }) | Action::Verify(Verify { common, .. })) = &self.action;
        common
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        match self.action {
            Action::Django(django) => django.run(settings).await,
            Action::Verify(verify) => verify.run(settings).await,
        }
    }
}

impl Django {
    async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let report = ReportFile::create(self.report.as_deref())?;
        let mut source = open_source(settings, &self.common.from).await?;
        let store =
            if self.dry_run { open_existing(settings).await? } else { Some(open_target(settings).await?) };
        let import = build_import(settings, store, self.options()).await?;

        let stop = Stop::default();
        let mut signals = Signals::listen()?;
        let mut progress = TerminalProgress::new(import.env.clock.clone());
        let run = import.run(&mut source, &mut progress, &stop);
        tokio::pin!(run);
        let mut outcome = loop {
            let signal = tokio::select! {
                outcome = &mut run => break outcome.map_err(reason)?,
                signal = signals.next() => signal,
            };
            if self.follow && !stop.requested.is_cancelled() {
                tracing::info!(
                    "Received {signal}; stopping after a last round (the first round: after its current batch); a \
                     second signal stops after the current batch"
                );
            } else {
                tracing::info!("Received {signal}; stopping after the current batch");
                stop.at_once.cancel();
            }
            stop.requested.cancel();
        };

        let written = report.map_or(Ok(()), |report| report.write(&mut outcome));
        let printed = print_report(&outcome.report)
            .and_then(|()| print_conflicts(&mut outcome, self.report.as_deref()));
        let has_changed = outcome.report.imported + outcome.report.updated > 0;
        if has_changed { after_change(printed) } else { printed }?;
        let done = if has_changed { "; the rows above were imported" } else { "" };
        written.map_err(|failure| format!("{failure}{done}"))?;
        self.check_result(&outcome.report)
    }

    /// Returns the decisions of the operator.
    fn options(&self) -> ImportOptions {
        ImportOptions {
            on_email_conflict: self.on_email_conflict,
            on_username_conflict: self.on_username_conflict,
            on_token_conflict: self.on_token_conflict,
            dry_run: self.dry_run,
            follow_every: self.follow.then_some(self.follow_interval),
            hashes_per_batch: HASHES_PER_CORE * cores(),
        }
    }

    /// Fails if conflicts are open, if rows are still to be imported, or if the checksums differ. After a dry
    /// run without open conflicts, prints that nothing was written.
    fn check_result(&self, report: &Report) -> Result<(), Failure> {
        let open = report.open_conflicts();
        if open > 0 {
            let done = if report.imported + report.updated == 0 {
                "nothing was imported"
            } else {
                "the other rows were imported"
            };
            return Err(format!(
                "{open} conflicts are open, and {done}: resolve them with --on-email-conflict, --on-username-conflict \
                 and --on-token-conflict, or change the rows"
            ));
        }
        if self.dry_run {
            return print("dry run: nothing was written");
        }
        if !report.complete {
            return Err("not all rows were imported: run the same command again to continue".to_owned());
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
        let report = ReportFile::create(self.report.as_deref())?;
        let mut source = open_source(settings, &self.common.from).await?;
        let store = store::open_usable(settings).await?;
        let options = ImportOptions {
            on_email_conflict: OnEmailConflict::Fail,
            on_username_conflict: OnUsernameConflict::Fail,
            on_token_conflict: OnTokenConflict::Fail,
            dry_run: true,
            follow_every: None,
            // A dry run hashes no batch.
            hashes_per_batch: 1,
        };
        let import = build_import(settings, Some(store), options).await?;
        let mut progress = TerminalProgress::new(import.env.clock.clone());

        let mut comparison = import.verify(&mut source, &mut progress).await.map_err(reason)?;

        report.map_or(Ok(()), |report| report.write(&mut comparison.outcome))?;
        print_report(&comparison.outcome.report)?;
        if comparison.uncompared > 0 {
            print(format_args!(
                "note       {} plaintext passwords were not compared: give the --secret-key-file that their import used",
                comparison.uncompared
            ))?;
        }
        if comparison.agrees() {
            return print("source and store agree");
        }
        Err(format!(
            "source and store differ: {} rows have no user, and {} rows differ from their users",
            comparison.missing, comparison.stale
        ))
    }
}
