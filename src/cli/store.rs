//! Opens the store that the settings name.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::{Failure, reason, signing::KEY_SUFFIX};
use crate::{
    clock::Clock,
    config::{DatabaseSettings, DatabaseUrl, Settings},
    database::{
        DatabaseOptions, NewestTimeline, PostgresOptions, SqliteOptions, sqlite_file::with_suffix,
        wait_for_postgres,
    },
    domain::io_reason,
    input_file::{self, ShownPath},
    postgres_url::PostgresUrl,
    publish,
    server::Workers,
    store::{LookupOptions, MigrateError, Schema, Store},
};

/// The first bytes of a database of SQLite (<https://www.sqlite.org/fileformat.html>, section 1.3).
const MAGIC: [u8; 16] = *b"SQLite format 3\0";

/// Why a file of another kind cannot be used.
const NOT_SQLITE: &str = "the file is not a database of SQLite: another file was meant";

/// The bytes that a new SQLite database takes, with its WAL.
const NEW_STORE_BYTES: usize = 1024 * 1024;

/// What happens if a SQLite file is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// It is created.
    Create,
    /// The command fails.
    Fail,
}

/// Opens the store without its replicas.
pub(super) fn open(settings: &Settings, if_missing: IfMissing) -> Result<Store, Failure> {
    // A command looks up few users.
    let lookup = LookupOptions { lanes: 1, ..lookup_options(settings) };
    open_on(settings, if_missing, lookup, &Workers::current())
}

/// Opens the store without its replicas; look-ups run on the runtimes of `workers`.
fn open_on(
    settings: &Settings,
    if_missing: IfMissing,
    lookup: LookupOptions,
    workers: &Workers,
) -> Result<Store, Failure> {
    if let DatabaseUrl::Sqlite(path) = &settings.database.url {
        // For a folder, `check_file` has the better error.
        if if_missing == IfMissing::Create || path.is_dir() {
            check_file(path)?;
        } else if !path.try_exists().map_err(|error| unusable_file(path, &io_reason(&error)))? {
            return Err(missing_file(path));
        }
        check_format("database.url", path)?;
        // Beside a new file, SQLite would delete the WAL, which may be all that is left of the missing one.
        refuse_leftovers(path, &["-wal"], "move them away")?;
    }
    let options = options(settings, "database.url", &settings.database.url, if_missing)?;
    open_store(options, lookup, workers)
}

/// Refuses to serve a new database beside the WAL or the key of a lost one.
pub(super) fn refuse_lost_database(path: &Path) -> Result<(), Failure> {
    let way_out = if with_suffix(path, "-wal").exists() {
        "move them away, or only the WAL and create a database with `kairos-identity migrate`"
    } else {
        "move the key away, or create a database that uses it with `kairos-identity migrate`"
    };
    refuse_leftovers(path, &["-wal", KEY_SUFFIX], way_out)
}

/// Refuses to create a database beside files that belong to a missing or empty one. `way_out` tells the
/// operator what to do if these files are not needed.
fn refuse_leftovers(path: &Path, suffixes: &[&str], way_out: &str) -> Result<(), Failure> {
    let has_tables = !is_without_tables(path) || with_suffix(path, "-wal").exists();
    if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) && has_tables {
        return Ok(());
    }
    let found = suffixes.iter().map(|suffix| with_suffix(path, suffix)).filter(|file| file.exists());
    let found: Vec<_> = found.map(|file| file.display().to_string()).collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(format!(
        "database.url: the database file {} is missing or empty, but files that belong to it exist ({}): put the database back beside \
         them, or, to start without its users, {way_out}",
        path.display(),
        found.join(", ")
    ))
}

/// True for a database of SQLite that consists of one page without tables: all that it held was in its WAL.
/// The page has the number of its tables at this place (<https://www.sqlite.org/fileformat.html>, section
/// 1.6).
fn is_without_tables(path: &Path) -> bool {
    const CELLS_AT: usize = 103;
    const PAGE_BYTES: u64 = 4_096;
    std::fs::metadata(path).is_ok_and(|file| file.len() == PAGE_BYTES)
        && std::fs::read(path).is_ok_and(|page| page.get(CELLS_AT..CELLS_AT + 2) == Some(&[0, 0]))
}

/// Formats the error for a database file that does not exist.
fn missing_file(path: &Path) -> Failure {
    // `sqlite://var/x.db` is a relative path, which may have been meant as `sqlite:///var/x.db`.
    let absolute = Path::new("/").join(path);
    let meant = if path.is_relative() && absolute.is_file() {
        format!(": write sqlite://{}", absolute.display())
    } else {
        String::new()
    };
    format!(
        "database.url: there is no database file {}{meant}: name the file of an existing store (--database-url sqlite://FILE), or \
         create a new store with `kairos-identity migrate`",
        ShownPath(path)
    )
}

/// Checks that the folder of a SQLite file can be written, or can be created. Does not open the file itself,
/// and leaves nothing behind.
pub(super) fn check_file(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(format!(
            "database.url: {} is a folder: name a file in it, such as sqlite://{}/kairos-identity.sqlite3",
            ShownPath(path),
            path.display()
        ));
    }
    let folder = publish::folder_of(path);
    match path.metadata() {
        Ok(found) if !found.is_file() => {
            Err(unusable_file(path, "it is a device, a pipe or a socket, not a file"))
        }
        // SQLite writes the WAL beside the database.
        Ok(_) => publish::check_folder(folder)
            .map_err(|error| format!("database.url: cannot write beside {}: {error}", ShownPath(path))),
        Err(error) if is_left_to_folder_check(&error) => publish::check_room(folder, NEW_STORE_BYTES)
            .map_err(|error| format!("database.url: cannot create {}: {error}", ShownPath(path))),
        Err(error) => Err(unusable_file(path, &io_reason(&error))),
    }
}

/// True if this error of a file leaves the decision to the check of its folder: the file does not exist, or
/// the folder is what is wrong.
fn is_left_to_folder_check(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::NotFound | Kind::PermissionDenied | Kind::NotADirectory)
}

/// Checks that an existing SQLite file may be read and written, and is one of SQLite. No connection of this
/// process may have it open: closing it here would release SQLite's locks.
pub(super) fn check_access(path: &Path) -> Result<(), Failure> {
    let mut file = open_to_write(path).map_err(|error| unusable_file(path, &reason_of(&error)))?;
    // SQLite creates them with the permissions that the file has at that time.
    for beside in ["-wal", "-shm"].map(|suffix| with_suffix(path, suffix)) {
        if let Err(error) = open_to_write(&beside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(unusable_file(&beside, &reason_of(&error)));
        }
    }
    match begins_as_sqlite(&mut file) {
        Ok(true) => {
            if let Some(warning) = input_file::shared_file_warning(path) {
                tracing::warn!("database.url: {warning}");
            }
            Ok(())
        }
        Ok(false) => Err(unusable_file(path, NOT_SQLITE)),
        Err(error) => Err(unusable_file(path, &io_reason(&error))),
    }
}

fn open_to_write(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Says why a file could not be opened to be read and written.
fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "the user of this process may not read and write it".to_owned(),
        _ => io_reason(error),
    }
}

/// Refuses a file of another kind than SQLite's, which SQLite would call damaged. A file that cannot be read
/// is left to SQLite. Errors name `key`, the setting or flag of the path. No connection of this process may
/// have the file open: closing it here would release SQLite's locks.
pub(super) fn check_format(key: &str, path: &Path) -> Result<(), Failure> {
    if !path.is_file() {
        return Ok(());
    }
    match File::open(path).and_then(|mut file| begins_as_sqlite(&mut file)) {
        Ok(false) => Err(format!("{key}: {}: {NOT_SQLITE}", ShownPath(path))),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// True if the file begins as a database of SQLite does, or is empty: an empty file becomes a database.
fn begins_as_sqlite(file: &mut File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    Ok(file.read(&mut start)? == 0 || start == MAGIC)
}

/// Formats why a SQLite file cannot be used.
fn unusable_file(path: &Path, reason: &str) -> Failure {
    format!("database.url: {}: {reason}", ShownPath(path))
}

/// Returns the options to open a database with the limits of the settings. Errors name `key`, the setting or
/// flag of the URL.
pub(super) fn options(
    settings: &Settings,
    key: &str,
    url: &DatabaseUrl,
    if_missing: IfMissing,
) -> Result<DatabaseOptions, Failure> {
    let database = &settings.database;
    Ok(match url {
        DatabaseUrl::Sqlite(path) => DatabaseOptions::Sqlite(SqliteOptions {
            path: path.clone(),
            create: if_missing == IfMissing::Create,
            readers: database.sqlite_readers.as_usize(),
            busy_timeout: database.sqlite_busy_timeout.get(),
            queue_length: database.sqlite_queue_length.as_usize(),
        }),
        DatabaseUrl::Postgres(url) => {
            DatabaseOptions::Postgres(Box::new(postgres_options(database, key, url)?))
        }
    })
}

/// Parses the database URL of a flag.
pub(super) fn parse_url(flag: &str, text: &str) -> Result<DatabaseUrl, Failure> {
    DatabaseUrl::parse(text)
        .ok_or_else(|| format!("{flag}: expected {}", DatabaseUrl::expects_instead_of(text)))
}

/// Opens the store for `serve`: with its replicas. A missing SQLite file is created, unless its WAL or its
/// key file exists: then the database was lost.
pub(super) fn open_to_serve(settings: &Settings, workers: &Workers) -> Result<Store, Failure> {
    let (database, lookup) = (&settings.database, lookup_options(settings));
    let primary = match &database.url {
        DatabaseUrl::Postgres(primary) => primary,
        DatabaseUrl::Sqlite(path) => {
            refuse_lost_database(path)?;
            return open_on(settings, IfMissing::Create, lookup, workers);
        }
    };
    if database.read_urls.as_slice().is_empty() {
        return open_on(settings, IfMissing::Create, lookup, workers);
    }
    let replicas = database.read_urls.as_slice().iter();
    let options = DatabaseOptions::Replicated {
        primary: Box::new(postgres_options(database, "database.url", primary)?),
        replicas: replicas
            .map(|url| postgres_options(database, "database.read-urls", url))
            .collect::<Result<_, _>>()?,
        lag_max: database.replica_lag_max.get(),
    };
    open_store(options, lookup, workers)
}

fn open_store(options: DatabaseOptions, lookup: LookupOptions, workers: &Workers) -> Result<Store, Failure> {
    let store = Store::open_on(options, lookup, &workers.runtimes());
    store.map_err(|error| format!("database.url: {}", reason(error)))
}

fn lookup_options(settings: &Settings) -> LookupOptions {
    LookupOptions {
        batch_tokens_max: settings.lookup.batch_tokens_max.as_usize(),
        lanes: settings.lookup.lanes.as_usize(),
        waiting_max: settings.lookup.waiting_max.as_usize(),
    }
}

fn postgres_options(database: &DatabaseSettings, key: &str, url: &str) -> Result<PostgresOptions, Failure> {
    Ok(PostgresOptions {
        url: url.parse::<PostgresUrl>().map_err(|error| format!("{key}: {error}"))?,
        pool_size: database.pool_size.as_usize(),
        connect_timeout: database.connect_timeout.get(),
        acquire_timeout: database.acquire_timeout.get(),
        statement_timeout: database.statement_timeout.get(),
        newest_timeline: NewestTimeline::default(),
        idle_timeout: database.idle_timeout.get(),
        connection_lifetime: database.connection_lifetime.get(),
        is_pooled: database.pooler,
    })
}

/// Waits for a PostgreSQL server that does not accept connections yet, at most for `database.startup-wait`.
pub(super) async fn wait_for_server(settings: &Settings, clock: &Clock) -> Result<(), Failure> {
    let (database, limit) = (&settings.database, settings.database.startup_wait.get());
    let DatabaseUrl::Postgres(url) = &database.url else { return Ok(()) };
    let options = postgres_options(database, "database.url", url)?;
    if limit.is_zero() {
        return Ok(());
    }
    let waited = wait_for_postgres(&options, limit, clock).await;
    waited.map_err(|error| format!("database.url: {}", reason(error)))
}

/// Opens an existing store with a schema that this release can use.
pub(super) async fn open_usable(settings: &Settings) -> Result<Store, Failure> {
    let store = open(settings, IfMissing::Fail)?;
    require_usable(settings, &store).await?;
    Ok(store)
}

/// Opens or creates a store that a command fills. A database without users is migrated to the schema of this
/// release.
pub(super) async fn open_or_create(settings: &Settings) -> Result<Store, Failure> {
    let store = open(settings, IfMissing::Create)?;
    if store.has_no_users().await.map_err(|error| database_failure(settings, &error))? {
        store.migrate().await.map_err(|error| database_failure(settings, &error))?;
    }
    Ok(store)
}

/// Refuses a schema that this release cannot use, and an incomplete copy; the error states what to do.
pub(super) async fn require_usable(settings: &Settings, store: &Store) -> Result<Schema, Failure> {
    let schema = require_schema(settings, store).await?;
    if store.has_unfinished_copy().await.map_err(reason)? {
        return Err(format!(
            "database.url: the database {} is an incomplete copy: run the interrupted `kairos-identity copy` again, or start over with an empty database",
            settings.database.url
        ));
    }
    Ok(schema)
}

/// Refuses a schema that this release cannot use; the error states what to do. Returns any other.
pub(super) async fn require_schema(settings: &Settings, store: &Store) -> Result<Schema, Failure> {
    let url = &settings.database.url;
    match store.schema().await.map_err(|error| database_failure(settings, &error))? {
        schema @ (Schema::Current | Schema::Compatible(_)) => Ok(schema),
        Schema::Behind(missing) => Err(format!(
            "database.url: the database {url} lacks {} migrations of this release: run `kairos-identity migrate` with the same \
             settings",
            missing.len()
        )),
        Schema::Ahead(unknown) => Err(database_failure(settings, &MigrateError::Ahead(unknown))),
    }
}

/// Refuses every schema but that of this release, for a command that must know all tables. The error states
/// what to do.
pub(super) async fn require_current(settings: &Settings, store: &Store) -> Result<(), Failure> {
    match require_schema(settings, store).await? {
        Schema::Compatible(unknown) => Err(database_failure(settings, &MigrateError::Ahead(unknown))),
        _ => Ok(()),
    }
}

/// Refuses a role of PostgreSQL that lacks rights on tables; the error names all of them.
pub(super) async fn require_rights(store: &Store) -> Result<(), Failure> {
    match store.missing_rights().await.map_err(reason)?.as_slice() {
        [] => Ok(()),
        missing => {
            Err(format!("the role of database.url lacks {}: grant it to the role", missing.join("; ")))
        }
    }
}

/// Formats an error with the URL of the database.
pub(super) fn database_failure(settings: &Settings, error: &MigrateError) -> Failure {
    format!("database.url: the database {}: {}", settings.database.url, reason(error))
}
