//! Opens SQLite files: those of a store, with its settings, and those of other applications, whose settings
//! stay.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::database::DatabaseError;

/// Options of a SQLite database.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Path of the database file.
    pub path: PathBuf,
    /// True if a missing file is created, with mode 0600; otherwise a missing file is an error.
    pub create: bool,
    /// Number of reader threads. More threads than cores make nothing faster.
    pub readers: usize,
    /// Time limit on waiting for a lock of another process.
    pub busy_timeout: Duration,
    /// Largest number of jobs that wait for the writer, and of jobs that wait for the readers. Beyond it,
    /// calls fail with [`DatabaseError::Overloaded`].
    pub queue_length: usize,
}

/// Characters that a path in a `file:` URI cannot contain unescaped.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b'?').add(b'#').add(b'%');

/// Opens a connection with these options.
pub(super) type Open = fn(&SqliteOptions) -> Result<SqliteConnection, DatabaseError>;

/// Settings of each connection to a store.
const COMMON: &str = "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; \
    PRAGMA cache_size = -16000; PRAGMA mmap_size = 2147418112;";

/// Opens a connection to a store that only reads.
pub(crate) fn open_reader(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    connect(options, &plain_name(options)?, &format!("PRAGMA query_only = ON; {COMMON}"))
}

/// Opens a writing connection to a store. A missing file is created if the options say so.
pub(super) fn open_writer(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    // FULL: an acknowledged write survives a crash of the machine. The checkpoint at 1,000 pages is SQLite's
    // default.
    const DURABLE: &str =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;";
    ensure_file(options)?;
    connect(options, &plain_name(options)?, &format!("{DURABLE} {COMMON}"))
}

/// Opens a file of another application and keeps its journal mode.
pub(super) fn open_foreign(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    ensure_file(options)?;
    connect(options, &plain_name(options)?, "")
}

/// Opens an existing file of any application in read-only mode and keeps its journal mode.
pub(super) fn open_read_only(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    require_file(&options.path)?;
    let path = path_text(options)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("./{path}") };
    let uri = format!("file:{}?mode=ro", utf8_percent_encode(&path, NOT_IN_A_PATH));
    connect(options, &uri, "PRAGMA query_only = ON;")
}

fn ensure_file(options: &SqliteOptions) -> Result<(), DatabaseError> {
    if !options.create {
        return require_file(&options.path);
    }
    create_private(&options.path).map_err(|error| error_in_file(&options.path, &error))
}

fn require_file(path: &Path) -> Result<(), DatabaseError> {
    if path.is_file() {
        return Ok(());
    }
    Err(DatabaseError::unavailable(format!("there is no database file {}", path.display())))
}

fn path_text(options: &SqliteOptions) -> Result<&str, DatabaseError> {
    let path = &options.path;
    path.to_str()
        .ok_or_else(|| DatabaseError::unavailable(format!("the path {} is not UTF-8", path.display())))
}

/// Returns the path, never a `file:` URI: the parameters of a URI could change what is opened.
fn plain_name(options: &SqliteOptions) -> Result<String, DatabaseError> {
    let path = path_text(options)?;
    Ok(if path.starts_with("file:") { format!("./{path}") } else { path.to_owned() })
}

/// Opens the file by its name, a path or a URI, and runs `pragmas`.
fn connect(options: &SqliteOptions, name: &str, pragmas: &str) -> Result<SqliteConnection, DatabaseError> {
    let to_error = |error: &dyn std::error::Error| error_in_file(&options.path, error);
    let mut connection = SqliteConnection::establish(name).map_err(|error| to_error(&error))?;
    // The time limit is set first, since the switch to WAL may have to wait for other processes too.
    let pragmas = format!("PRAGMA busy_timeout = {}; {pragmas}", options.busy_timeout.as_millis());
    connection.batch_execute(&pragmas).map_err(|error| to_error(&error))?;
    Ok(connection)
}

/// Creates the file, readable and writable by its owner only, and its parent directories. Does not open a
/// file that exists: closing it would release the locks that other connections of this process have on it.
fn create_private(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    // SQLite creates the -wal and -shm files with the mode of this file.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

fn error_in_file(path: &Path, error: &dyn std::error::Error) -> DatabaseError {
    DatabaseError::unavailable(format!("{}: {error}", path.display()))
}
