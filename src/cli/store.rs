//! Opening the store that the settings name.

use super::{Failure, reason};
use crate::{
    config::{DatabaseSettings, DatabaseUrl, Settings},
    store::{
        LookupOptions, MigrateError, PostgresOptions, PostgresUrl, Schema, SqliteOptions, Store, StoreOptions,
    },
};

/// Opens the store without its replicas; `create` lets a missing file of SQLite be made.
pub(super) fn open(settings: &Settings, create: bool) -> Result<Store, Failure> {
    let options = options(settings, "database.url", &settings.database.url, create)?;
    Store::open(options, lookup(settings)).map_err(reason)
}

/// How a database is reached, with the limits of the settings; errors name the `key`.
pub(super) fn options(
    settings: &Settings,
    key: &str,
    url: &DatabaseUrl,
    create: bool,
) -> Result<StoreOptions, Failure> {
    let database = &settings.database;
    Ok(match url {
        DatabaseUrl::Sqlite(path) => StoreOptions::Sqlite(SqliteOptions {
            path: path.clone(),
            create,
            readers: database.sqlite_readers.as_usize(),
            busy_timeout: database.sqlite_busy_timeout.get(),
            queue_length: database.sqlite_queue_length.as_usize(),
        }),
        DatabaseUrl::Postgres(url) => StoreOptions::Postgres(Box::new(postgres(database, key, url)?)),
    })
}

/// A database from the command line.
pub(super) fn url(flag: &str, text: &str) -> Result<DatabaseUrl, Failure> {
    DatabaseUrl::parse(text).ok_or_else(|| {
        format!(
            "{flag}: expected sqlite:///folder/file, sqlite://relative/file or postgres://user:password@host:port/database"
        )
    })
}

/// Opens the store that is served: with its replicas, and created if it may be.
pub(super) fn open_to_serve(settings: &Settings) -> Result<Store, Failure> {
    let database = &settings.database;
    let DatabaseUrl::Postgres(primary) = &database.url else { return open(settings, true) };
    if database.read_urls.as_slice().is_empty() {
        return open(settings, true);
    }
    let replicas = database.read_urls.as_slice().iter();
    let options = StoreOptions::Replicated {
        primary: Box::new(postgres(database, "database.url", primary)?),
        replicas: replicas
            .map(|url| postgres(database, "database.read-urls", url))
            .collect::<Result<_, _>>()?,
        lag_max: database.replica_lag_max.get(),
    };
    Store::open(options, lookup(settings)).map_err(reason)
}

fn lookup(settings: &Settings) -> LookupOptions {
    LookupOptions {
        batch_tokens_max: settings.lookup.batch_tokens_max.as_usize(),
        lanes: settings.lookup.lanes.as_usize(),
        waiting_max: settings.lookup.waiting_max.as_usize(),
    }
}

fn postgres(database: &DatabaseSettings, key: &str, url: &str) -> Result<PostgresOptions, Failure> {
    Ok(PostgresOptions {
        url: url.parse::<PostgresUrl>().map_err(|error| format!("{key}: {error}"))?,
        pool_size: database.pool_size.as_usize(),
        connect_timeout: database.connect_timeout.get(),
        acquire_timeout: database.acquire_timeout.get(),
        statement_timeout: database.statement_timeout.get(),
        idle_timeout: database.idle_timeout.get(),
        connection_lifetime: database.connection_lifetime.get(),
        is_pooled: database.pooler,
    })
}

/// Opens a store that is there and has the schema of this release.
pub(super) async fn open_current(settings: &Settings) -> Result<Store, Failure> {
    let store = open(settings, false)?;
    require_current(settings, &store).await?;
    Ok(store)
}

/// Opens a store that is to be filled, and brings a database without users to the schema of this release.
pub(super) async fn open_or_make(settings: &Settings) -> Result<Store, Failure> {
    let store = open(settings, true)?;
    if store.has_no_users().await.map_err(|error| at(settings, &error))? {
        store.migrate().await.map_err(|error| at(settings, &error))?;
    }
    Ok(store)
}

/// Refuses a schema of another release and a store that is half filled, and says what to do.
pub(super) async fn require_current(settings: &Settings, store: &Store) -> Result<(), Failure> {
    require_schema(settings, store).await?;
    if store.is_half_copied().await.map_err(reason)? {
        return Err(format!(
            "the database {} is half filled: run the `kairos-identity copy` that was stopped again, or begin anew with an empty one",
            settings.database.url
        ));
    }
    Ok(())
}

/// Refuses a schema of another release, and says what to do.
pub(super) async fn require_schema(settings: &Settings, store: &Store) -> Result<(), Failure> {
    let url = &settings.database.url;
    match store.schema().await.map_err(|error| at(settings, &error))? {
        Schema::Current => Ok(()),
        Schema::Behind(missing) => Err(format!(
            "the database {url} lacks {} of this release's migrations: run `kairos-identity migrate` with the same \
             settings",
            missing.len()
        )),
        Schema::Ahead(unknown) => Err(at(settings, &MigrateError::Ahead(unknown))),
    }
}

/// The reason, with the database that it is about.
pub(super) fn at(settings: &Settings, error: &MigrateError) -> Failure {
    format!("the database {}: {}", settings.database.url, reason(error))
}
