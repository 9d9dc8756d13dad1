//! The command line: one file per subcommand. This module constructs and connects the other modules; it
//! contains no business rules.

mod arguments;
mod audit;
mod backup;
mod caller;
mod command_events;
mod copy;
mod doctor;
mod export;
mod failure;
mod healthcheck;
mod import;
mod keys;
mod list;
mod mails;
mod migrate;
mod output;
mod printable;
mod progress;
mod serve;
mod server_clock;
mod shell;
mod signals;
mod signing;
mod store;
mod user;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};

pub use self::failure::CliError;
use self::failure::{Failure, reason};
use crate::{
    clock::Clock,
    config::{LogFormat, ServeFlags, Settings, Sources, StoreFlags},
    database,
    domain::Numbered,
    server::{EVENT_INTERVAL, open_files, worker_count},
    telemetry,
};

/// How long a command that succeeded waits until its SQLite files are complete without their WAL, which holds
/// at most some 100 MB.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same after a failure, for example a second signal.
const CLOSE_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The identity service of Kairos: registers users, verifies their email, logs them in, and resolves an
/// auth_token to its user.
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "clap shows it on a terminal, where marks are noise")]
#[command(
    name = "kairos-identity",
    version,
    arg_required_else_help = true,
    after_help = "Start with `kairos-identity serve`: it stores its data in ./data and listens on 127.0.0.1:50051.\n\
                  Every setting also has an environment variable (KAIROS_IDENTITY_*): see docs/CONFIG.md.\n\
                  Exit codes: 0 for success, 1 for a failure (reported on standard error),\n\
                  2 for an invalid command line: an unknown command or flag, or a missing or malformed value."
)]
pub struct Cli {
    #[command(subcommand)]
    command: AnyCommand,
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC API until SIGTERM or SIGINT
    ///
    /// A SQLite database is migrated at startup; a PostgreSQL database must have been migrated with
    /// `kairos-identity migrate`. On the first signal the service lets calls in flight finish; on a second
    /// signal, more than a second later, it exits at once.
    Serve(serve::Serve),
    /// Migrate the database to the schema of this release
    ///
    /// Other instances may serve or migrate the same database meanwhile.
    Migrate,
    /// Manage users
    User(user::User),
    #[expect(clippy::doc_markdown, reason = "clap shows it on a terminal, where marks are noise")]
    /// List the audit trail: decisions about logins, callers and accounts
    ///
    /// The events are in the order of time. The fields of an event: time; kind; OK, or the reason of a
    /// refusal; the user's auth_token; the caller; the address of the end user, or of the connection; then
    /// optional fields with their names. docs/AUDIT.md explains each kind.
    Audit(audit::Audit),
    /// Manage the callers file and service tokens
    Caller(caller::Caller),
    /// List and rotate the keys that sign access tokens, and those that encrypt stored secrets
    Keys(keys::Keys),
    /// Import users from a Django backend
    Import(import::Import),
    /// Export users to a Django backend
    Export(export::Export),
    /// Copy a whole store into an empty database of either engine
    ///
    /// Copies every table, and compares the checksums of source and copy at the end. If a copy was
    /// interrupted, run the command again to continue it. An incomplete copy cannot be served.
    Copy(copy::Copy),
    /// Back up a SQLite database, also while it is served
    ///
    /// The backup is a single file with everything that was committed when the command began. To restore it,
    /// stop the service, remove the -wal and -shm files of the database, and copy the backup over the
    /// database.
    Backup(backup::Backup),
    /// Check settings, files, ports, database, keys and mail before or while the service runs
    ///
    /// Runs the checks of the start of `serve`, writes to the database without changing a row, connects to
    /// the SMTP server without sending a mail, and compares clocks and replicas. The fields of a finding:
    /// check; ok, warning or failed; what was found, and what to do. The exit code is 1 if a finding is a
    /// failure: with it, `serve` does not start, starts without logins, without mail or without a replica, or
    /// will soon refuse logins, for example on a full disk or under a clock that is wrong. It is 2 if the
    /// value of a flag is malformed. Give it the same settings as `serve`.
    Doctor(doctor::Doctor),
    /// Check the health of the running service, for example in a container
    Healthcheck(healthcheck::Healthcheck),
}

/// All commands.
#[derive(Debug, Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    WithSettings(Command),
    /// Print the completions of this command line for a shell
    ///
    /// For example, for bash: kairos-identity completions bash >
    /// ~/.local/share/bash-completion/completions/kairos-identity
    Completions(shell::Completions),
    /// Write the man pages of this command line into a folder
    Man(shell::Man),
}

/// Parses the command line and runs its command. Returns the exit code of the process.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => match output::print_clap(&error) {
            Ok(()) => return u8::try_from(error.exit_code()).unwrap_or(1).into(),
            Err(failure) => Err(failure.into()),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::report_failure(&error.to_string());
            error.exit_code().into()
        }
    }
}

/// Prints the settings in force.
fn print_config(sources: &Sources) -> Result<(), Failure> {
    let mut output = output::Lines::new();
    for line in Settings::print(sources).lines() {
        output.line(line)?;
    }
    output.finish()
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Why the command failed, for the operator.
    pub fn run(self) -> Result<(), CliError> {
        // rustls needs a default provider if a library builds its own TLS configuration. A second call
        // changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match self.command {
            AnyCommand::WithSettings(command) => command.run(&self.store),
            AnyCommand::Completions(completions) => Ok(completions.run(Self::command())?),
            AnyCommand::Man(man) => Ok(man.run(Self::command())?),
        }
    }
}

impl Command {
    fn run(self, store_flags: &StoreFlags) -> Result<(), CliError> {
        let (store_flags, serve_flags) = self.setting_flags(store_flags)?;
        let (settings, sources) = match &self {
            Self::Serve(_) | Self::Doctor(_) => Settings::load_with_findings(&store_flags, &serve_flags),
            _ => Settings::load(&store_flags, &serve_flags),
        }?;
        open_files::raise_limit();
        let threads = match &self {
            Self::Serve(_) => worker_count(settings.server.threads.as_usize()),
            _ => 0,
        };
        open_files::require_min(threads).map_err(|error| error.to_string())?;
        let is_json = settings.log.format == LogFormat::Json;
        let started_at = Duration::from_micros(Clock::system().now().unix_micros().unsigned_abs());
        // `doctor` reports the warnings itself.
        let level = if matches!(self, Self::Doctor(_)) { "off" } else { settings.log.level.as_str() };
        let telemetry = telemetry::init(level, is_json, started_at).map_err(|error| error.to_string())?;
        // `caller token` writes an entry of the callers file to standard error: no warning may be among it.
        if !matches!(self, Self::Caller(_) | Self::Doctor(_)) {
            sources.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        if let Self::Serve(serve) = &self
            && serve.print_config
        {
            let findings = settings.findings(&sources);
            return if findings.is_empty() {
                print_config(&sources).map_err(CliError::from)
            } else {
                Err(CliError::of_settings(&sources, &Numbered(&findings).to_string()))
            };
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().event_interval(EVENT_INTERVAL).build();
        let runtime = runtime.map_err(|error| format!("cannot start the async runtime: {error}"))?;
        let done = runtime.block_on(async {
            signals::handle_file_size_limit()?;
            match self {
                Self::Serve(_) => serve::run(settings, &sources, &telemetry).await,
                Self::Migrate => migrate::run(&settings).await,
                Self::User(user) => user.run(&settings).await,
                Self::Audit(audit) => audit.run(&settings).await,
                Self::Caller(caller) => caller.run(&settings),
                Self::Keys(keys) => keys.run(&settings).await,
                Self::Import(import) => import.run(&settings).await,
                Self::Export(export) => export.run(&settings).await,
                Self::Copy(copy) => copy.run(&settings).await,
                Self::Backup(backup) => backup.run(&settings),
                Self::Doctor(doctor) => doctor.run(&settings, &sources).await,
                Self::Healthcheck(healthcheck) => healthcheck.run(&settings).await,
            }
        });
        // The tasks of the runtime own the last handles of the store.
        drop(runtime);
        let limit = if done.is_ok() { CLOSE_TIMEOUT } else { CLOSE_TIMEOUT_AFTER_FAILURE };
        if !database::wait_until_closed(limit) {
            tracing::warn!("The database file was not closed in time; the next start reads its WAL");
        }
        done.map_err(|failure| CliError::of_settings(&sources, &failure))
    }

    /// Returns the flags that are settings, with those of the command.
    ///
    /// # Errors
    /// [`CliError::MalformedFlag`] if the URL of a source or target is malformed.
    fn setting_flags(&self, store_flags: &StoreFlags) -> Result<(StoreFlags, ServeFlags), CliError> {
        let mut store_flags = store_flags.clone();
        let mut serve_flags = ServeFlags::default();
        match self {
            Self::Serve(serve) => serve_flags = serve.flags.clone(),
            Self::Doctor(doctor) => serve_flags = doctor.flags.clone(),
            Self::Import(import) => {
                import.check_source_url().map_err(CliError::MalformedFlag)?;
                if let Some(url) = import.store_url() {
                    store_flags.settings.set("database.url", "to", url);
                }
                if let Some(path) = import.secret_key_file() {
                    serve_flags.set("secret.key-file", "secret-key-file", path);
                }
            }
            Self::Copy(copy) => {
                copy.check_source_url().map_err(CliError::MalformedFlag)?;
                if let Some(url) = copy.store_url() {
                    store_flags.settings.set("database.url", "to", url);
                }
            }
            Self::Keys(keys) => {
                if let Some(path) = keys.secret_key_file() {
                    serve_flags.set("secret.key-file", "secret-key-file", path);
                }
            }
            Self::Export(export) => export.check_target_url().map_err(CliError::MalformedFlag)?,
            Self::Migrate
            | Self::User(_)
            | Self::Audit(_)
            | Self::Caller(_)
            | Self::Backup(_)
            | Self::Healthcheck(_) => {}
        }
        Ok((store_flags, serve_flags))
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn no_two_arguments_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_store_of_a_copy_or_an_import_is_named_once() {
        for command in [&["copy"][..], &["import", "django"], &["import", "verify"]] {
            let named = |flags: &[&str]| {
                let arguments =
                    ["kairos-identity"].iter().chain(command).chain(&["--from", "sqlite://a"]).chain(flags);
                Cli::try_parse_from(arguments)
            };
            assert!(named(&["--to", "sqlite://b"]).is_ok(), "{command:?}");
            let error = named(&["--to", "sqlite://b", "--database-url", "sqlite://c"]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{command:?}");
        }
    }
}
