//! The command line: one file a subcommand. Here everything is wired together, and nothing is decided.

mod audit;
mod backup;
mod caller;
mod copy;
mod export;
mod healthcheck;
mod import;
mod keys;
mod migrate;
mod progress;
mod serve;
mod signals;
mod signing;
mod store;
mod user;

use std::io;

use clap::{Parser, Subcommand};

use crate::{
    config::{LogFormat, ServeFlags, Settings, StoreFlags},
    store::chain,
    telemetry,
};

/// The identity service of Kairos: registers people, verifies their email, logs them in, and tells who an auth_token
/// stands for.
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "clap shows it on a terminal, where marks are noise")]
#[command(
    name = "kairos-identity",
    version,
    arg_required_else_help = true,
    after_help = "Start with `kairos-identity serve`: it keeps its data in ./data and listens on 127.0.0.1:50051.\n\
                  Every flag has a variable too (KAIROS_IDENTITY_…): docs/CONFIG.md lists all settings.\n\
                  Exit codes: 0 for success, 1 for a failure (its reason is on standard error), 2 for a wrong command line."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC API until SIGTERM or SIGINT
    ///
    /// A file of SQLite is migrated at the start; PostgreSQL must have been migrated with `kairos-identity migrate`. The
    /// first signal lets calls in flight finish, a second one exits at once.
    Serve(serve::Serve),
    /// Bring the database to the schema of this release
    ///
    /// Safe while other instances run or do the same.
    Migrate,
    /// Look at users, and change them
    User(user::User),
    #[expect(clippy::doc_markdown, reason = "clap shows it on a terminal, where marks are noise")]
    /// Read what was decided about logins, callers and accounts
    ///
    /// A line an event, in the order of their time, with tabs between: time; kind; OK or why it was refused; the
    /// user's auth_token; the caller; the end user's address, or that of the connection; then what else is known, by name.
    /// docs/AUDIT.md explains each kind.
    Audit(audit::Audit),
    /// Make what callers prove themselves with
    Caller(caller::Caller),
    /// Look at the keys that sign access tokens, and replace them
    Keys(keys::Keys),
    /// Take users over from a Django backend
    Import(import::Import),
    /// Give users back to a Django backend
    Export(export::Export),
    /// Copy a whole store into an empty database, of either engine
    ///
    /// Every table, compared by checksum at the end. A copy that was stopped goes on when it is run again; until it is whole, nothing serves it.
    Copy(copy::Copy),
    /// Copy the file of a running store on SQLite
    ///
    /// The new file is whole, holds all that was committed, and becomes the store by being copied to its place while the service is stopped.
    Backup(backup::Backup),
    /// Ask the running service whether it serves; for containers
    Healthcheck(healthcheck::Healthcheck),
}

/// A reason on one line.
type Failure = String;

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// The reason of a failure, on one line, for people.
    pub fn run(self) -> Result<(), Failure> {
        // rustls asks for it where a library of ours builds a configuration by itself; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut store_flags = self.store.clone();
        let mut serve_flags = ServeFlags::default();
        match &self.command {
            Command::Serve(serve) => serve_flags = serve.flags.clone(),
            Command::Import(import) => {
                store_flags.database_url = import.store_url().cloned().or(store_flags.database_url);
                serve_flags.secret_key_file = import.secret_key_file().cloned();
            }
            Command::Copy(copy) => {
                store_flags.database_url = copy.store_url().cloned().or(store_flags.database_url);
            }
            Command::Migrate
            | Command::User(_)
            | Command::Audit(_)
            | Command::Caller(_)
            | Command::Keys(_)
            | Command::Export(_)
            | Command::Backup(_)
            | Command::Healthcheck(_) => {}
        }
        let (settings, sources) =
            Settings::of_process(&store_flags, &serve_flags).map_err(|error| error.to_string())?;
        if let Command::Serve(serve) = &self.command {
            settings.check_for_serve().map_err(|error| error.to_string())?;
            if serve.print_config {
                print!("{}", Settings::print(&sources));
                return Ok(());
            }
        }
        let is_json = settings.log.format == LogFormat::Json;
        let _log =
            telemetry::init(settings.log.level.as_str(), is_json).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("the runtime cannot be started: {error}"))?;
        runtime.block_on(async {
            match self.command {
                Command::Serve(_) => serve::run(settings).await,
                Command::Migrate => migrate::run(&settings).await,
                Command::User(user) => user.run(&settings).await,
                Command::Audit(audit) => audit.run(&settings).await,
                Command::Caller(caller) => caller.run(),
                Command::Keys(keys) => keys.run(&settings).await,
                Command::Import(import) => import.run(&settings).await,
                Command::Export(export) => export.run(&settings).await,
                Command::Copy(copy) => copy.run(&settings).await,
                Command::Backup(backup) => backup.run(&settings),
                Command::Healthcheck(healthcheck) => healthcheck.run(&settings).await,
            }
        })
    }
}

/// Whether whoever reads the output has read enough, as `head` does.
fn was_closed(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(reason(error)),
    }
}

/// An error with its causes, as the reason of a failure.
fn reason(error: impl std::error::Error) -> Failure {
    chain(&error)
}
