//! Opens the source and the store, and constructs the import.

use std::{sync::Arc, time::Duration};

use crate::{
    callers::COMMAND_LINE,
    cli::{
        Failure, reason, signing,
        store::{self, IfMissing},
    },
    config::{DatabaseUrl, Settings},
    django::DjangoSource,
    domain::Origin,
    entropy::Entropy,
    env::Env,
    import::{Import as Importer, ImportOptions, ROWS_PER_TRANSACTION},
    password::{PasswordOptions, Passwords},
    sealing::SealingKeys,
    store::Store,
};

/// Opens the database of the Django backend.
pub(super) async fn open_source(settings: &Settings, from: &str) -> Result<DjangoSource, Failure> {
    let url = store::parse_url("--from", from)?;
    if let DatabaseUrl::Sqlite(path) = &url {
        store::check_format("--from", path)?;
    }
    let options = store::options(settings, "--from", &url, IfMissing::Fail)?;
    DjangoSource::open(&options).await.map_err(|error| format!("--from {url}: {}", reason(error)))
}

/// Opens or creates the store to import into.
pub(super) async fn open_target(settings: &Settings) -> Result<Store, Failure> {
    settings.check_for_hashing().map_err(|error| error.to_string())?;
    let store = store::open_or_create(settings).await?;
    store::require_usable(settings, &store).await?;
    Ok(store)
}

/// Opens the store for a dry run, which creates none. Returns `None` if the store is missing or was never
/// migrated.
pub(super) async fn open_existing(settings: &Settings) -> Result<Option<Store>, Failure> {
    if let DatabaseUrl::Sqlite(path) = &settings.database.url
        && !path.exists()
    {
        return Ok(None);
    }
    let store = store::open(settings, IfMissing::Fail)?;
    if store.is_new().await.map_err(|error| store::database_failure(settings, &error))? {
        return Ok(None);
    }
    store::require_usable(settings, &store).await?;
    Ok(Some(store))
}

/// Constructs the import into `store` and starts its hashing threads. Creates a missing key file only if the
/// import writes.
pub(super) async fn build_import(
    settings: &Settings,
    store: Option<Store>,
    options: ImportOptions,
) -> Result<Importer, Failure> {
    let env = Env::system();
    let writes = store.is_some() && !options.dry_run;
    let persistent = persistent_key(settings, store.as_ref(), writes, &env.entropy).await?;
    if persistent.is_none() && writes {
        tracing::warn!(
            "--secret-key-file is not set: the import cannot record which plaintext passwords it has hashed, so a \
             later run must hash them again to detect changes"
        );
    }
    let passwords = PasswordOptions {
        cost: settings.password.cost.get(),
        threads: 0, // one per core
        // A full queue would fail the import. At most `ROWS_PER_TRANSACTION` rows that are checked, or
        // `hashes_per_batch` rows that are hashed, wait at the same time: the queue is twice as long as both
        // together.
        queue_length: 2 * (usize::from(ROWS_PER_TRANSACTION) + options.hashes_per_batch),
        refusal_time_max: Duration::ZERO,
    };
    Ok(Importer {
        store,
        passwords: Passwords::start(passwords, env.clone()).map_err(reason)?,
        is_key_persistent: persistent.is_some(),
        key: Arc::new(persistent.unwrap_or_else(|| SealingKeys::ephemeral(&env.entropy))),
        env,
        origin: Origin::local(COMMAND_LINE),
        options,
    })
}

/// Loads the key of `secret.key-file`. If the setting is unset, returns `None` on PostgreSQL, and on SQLite
/// loads the key file beside the database. If that file is missing, it is created if `may_create` is set;
/// otherwise returns `None`.
async fn persistent_key(
    settings: &Settings,
    store: Option<&Store>,
    may_create: bool,
    entropy: &Entropy,
) -> Result<Option<SealingKeys>, Failure> {
    let has_default_key = matches!(settings.database.url, DatabaseUrl::Sqlite(_));
    match store {
        Some(store) if may_create && (settings.secret.key_file.is_some() || has_default_key) => {
            signing::sealing_keys(settings, store, entropy).await.map(Some)
        }
        _ => signing::check_key(settings, None).await,
    }
}

/// Returns the number of cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
