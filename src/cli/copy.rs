//! `kairos-identity copy`

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{
    Failure,
    output::print_change,
    progress::TerminalProgress,
    reason, signing,
    store::{self, IfMissing},
};
use crate::{
    clock::Clock,
    config::{DatabaseUrl, Settings},
    domain::hex,
    env::Env,
    import::Progress,
    maintenance::{CopiedTable, StoreCopy},
    sealing::SealingKeys,
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The store to copy, which is only read; stop the service first
    #[arg(long, value_name = "URL")]
    from: String,
    /// The empty database to copy into; the same as --database-url
    #[arg(long, value_name = "URL", conflicts_with = "database-url")]
    to: Option<String>,
}

impl Copy {
    /// Returns the URL of the target, which replaces the setting `database.url`.
    pub(super) fn store_url(&self) -> Option<&String> {
        self.to.as_ref()
    }

    /// Checks the form of the URL of the source.
    pub(super) fn check_source_url(&self) -> Result<(), Failure> {
        store::parse_url("--from", &self.from).map(drop)
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let from = store::parse_url("--from", &self.from)?;
        let mut source_settings = settings.clone();
        source_settings.database.url = from.clone();
        let of_source = |failure: Failure| {
            format!("--from {from}: {}", failure.strip_prefix("database.url: ").unwrap_or(&failure))
        };
        let source_store = store::open_usable(&source_settings).await.map_err(of_source)?;
        store::require_current(&source_settings, &source_store).await.map_err(of_source)?;
        let target = store::open_or_create(settings).await?;
        store::require_current(settings, &target).await?;
        // Only migrated and checked here: the copy opens the database itself.
        drop(target);

        let source = store::options(settings, "--from", &from, IfMissing::Fail)?;
        let target = store::options(settings, "--to", &settings.database.url, IfMissing::Create)?;
        let mut copy = StoreCopy::begin(&source, &target, clock.now()).await.map_err(reason)?;
        let mut progress = TerminalProgress::new(clock.clone());
        progress.begin("copying", copy.count().await.map_err(reason)?);
        let tables = copy.run(clock.now(), |_, rows| progress.advance(rows)).await;
        progress.end();
        let to = &settings.database.url;
        tables
            .map_err(|error| format!("{from} to {to}: {}", reason(error)))?
            .iter()
            .try_for_each(print_table)?;

        print_change(format_args!(
            "copied {from} to {}; the checksums of both agree",
            settings.database.url
        ))?;
        match source_key_file(&source_settings, source_store).await {
            Some(path) => print_change(format_args!(
                "serve the copy with --secret-key-file {}: that key encrypts the secrets in it",
                path.display()
            )),
            None => print_change(
                "serve the copy with the key file of the source (--secret-key-file FILE): that key encrypts the \
                 secrets in it",
            ),
        }
    }
}

/// Returns the file of the key that encrypts the secrets in `source`: the one of `secret.key-file` or the one
/// beside the database. `None` if neither file has that key.
async fn source_key_file(settings: &Settings, source: Store) -> Option<PathBuf> {
    let beside_database = match &settings.database.url {
        DatabaseUrl::Sqlite(path) => Some(signing::default_key_path(path)),
        DatabaseUrl::Postgres(_) => None,
    };
    for path in settings.secret.key_file.clone().into_iter().chain(beside_database) {
        let Ok(key) = SealingKeys::load(&path) else { continue };
        let access_tokens = signing::access_tokens(settings);
        let keys =
            signing::signing_keys(settings, source.clone(), Arc::new(key), access_tokens, Env::system());
        if keys.check().await.is_ok() {
            return Some(path);
        }
    }
    None
}

/// Prints the number of rows and the checksum of a copied table.
fn print_table(table: &CopiedTable) -> Result<(), Failure> {
    print_change(format_args!("{:26} {:>9} rows  {}", table.name, table.rows, hex(&table.checksum)))
}
