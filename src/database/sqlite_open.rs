//! Opens SQLite files: those of a store, with its settings, and those of other applications, whose settings
//! stay.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{sqlite_close::OpenConnection, sqlite_copy::PrivateCopy, sqlite_file::with_suffix};
use crate::{database::DatabaseError, domain::io_reason, input_file::ShownPath};

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

/// What SQLite says of a file that it may not read, or beside which it may not write.
const CANNOT_OPEN: &str = "unable to open database file";

/// The error number of a process that has as many open files as it may have (EMFILE).
const TOO_MANY_OPEN_FILES: i32 = 24;

/// Opens a connection with these options.
pub(super) type Open = fn(&SqliteOptions) -> Result<OpenConnection<SqliteConnection>, DatabaseError>;

/// Settings of each connection to a store. Its cache has 16,000 KiB. It maps as much of the file as SQLite
/// allows (2 GiB less 64 KiB), so that a page in memory is read without a system call.
const COMMON: &str = "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; \
    PRAGMA cache_size = -16000; PRAGMA mmap_size = 2147418112;";

/// Opens a connection that only reads a store.
pub(crate) fn open_reader(
    options: &SqliteOptions,
) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    connect(options, &plain_name(options)?, &format!("PRAGMA query_only = ON; {COMMON}"))
}

/// Opens a writing connection to a store. A missing file is created if the options say so.
pub(super) fn open_writer(
    options: &SqliteOptions,
) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    // FULL: an acknowledged write survives a crash of the machine. The checkpoint at 1,000 pages is SQLite's
    // default. A WAL that grew beyond 64 MiB is truncated to that size after a checkpoint.
    const DURABLE: &str =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;";
    let is_missing = !options.path.exists();
    ensure_file(options)?;
    let opened = connect(options, &plain_name(options)?, &format!("{DURABLE} {COMMON}"));
    let is_empty = || std::fs::metadata(&options.path).is_ok_and(|file| file.len() == 0);
    if opened.is_err() && is_missing && is_empty() {
        // Otherwise a failed start, for example on a full disk, would leave a file that is no database.
        let _ = std::fs::remove_file(&options.path);
    }
    opened
}

/// Opens a file of another application and keeps its journal mode.
pub(super) fn open_foreign(
    options: &SqliteOptions,
) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    ensure_file(options)?;
    connect(options, &plain_name(options)?, "")
}

/// Opens an existing file of any application to read it only, keeps its journal mode, and leaves no file
/// behind.
///
/// A reader of a file in WAL mode needs the files -wal and -shm. If there is a -wal file, but no -shm file,
/// no other program has the database open, and a copy is read. If the -wal file is missing or empty, the
/// database is opened for writing, although the connection only reads: SQLite deletes the two files only when
/// such a connection closes. If they cannot be created, the database is read as one that no other program
/// changes meanwhile.
pub(super) fn open_read_only(
    options: &SqliteOptions,
) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    const QUERY_ONLY: &str = "PRAGMA query_only = ON;";
    require_file(&options.path)?;
    let path = path_text(options)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("./{path}") };
    let uri = |mode: &str| format!("file:{}?{mode}", utf8_percent_encode(&path, NOT_IN_A_PATH));
    let is_in_wal_mode = is_in_wal_mode(&options.path);
    let has_wal = is_in_wal_mode && has_wal(&options.path);
    if has_wal && !with_suffix(&options.path, "-shm").exists() {
        return open_copy(options);
    }
    if has_wal || !is_in_wal_mode {
        return connect(options, &uri("mode=ro"), QUERY_ONLY);
    }
    let is_writable = OpenOptions::new().append(true).open(&options.path).is_ok();
    if is_writable {
        // The files are created by the first statement that reads.
        let pragmas = format!("{QUERY_ONLY} SELECT count(*) FROM sqlite_master;");
        match try_connect(options, &uri("mode=rw"), &pragmas) {
            Ok(connection) => return Ok(connection),
            Err(reason) if reason.contains(CANNOT_OPEN) => {}
            Err(reason) => return Err(refusal(&options.path, &reason)),
        }
    }
    tracing::warn!(
        path,
        "The database is in WAL mode and cannot be written here: changes that are made while it is read are not seen"
    );
    connect(options, &uri("mode=ro&immutable=1"), QUERY_ONLY)
}

/// Opens a copy of the file and its -wal file, and removes it: the open connection keeps the content.
fn open_copy(options: &SqliteOptions) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    // Writes the content of the -wal file into the copy, so that one file has all.
    const READ_COPY: &str = "PRAGMA journal_mode = DELETE; PRAGMA query_only = ON;";
    let copy = PrivateCopy::of(&options.path).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::ResourceBusy => "another program has just written to it: try again".to_owned(),
            _ => format!(
                "it has a -wal file, and cannot be copied into the folder of temporary files: {}",
                io_reason(&error)
            ),
        };
        in_file(&options.path, &reason)
    })?;
    connect(options, &copy.path().to_string_lossy(), READ_COPY)
}

/// True if the header of the file says that it is in WAL mode (SQLite, "Database File Format", 1.3).
fn is_in_wal_mode(path: &Path) -> bool {
    const READ_VERSION_AT: usize = 19;
    const WAL: u8 = 2;
    let mut header = [0; READ_VERSION_AT + 1];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.last() == Some(&WAL)
}

/// True if the file has a -wal file with content.
fn has_wal(path: &Path) -> bool {
    std::fs::metadata(with_suffix(path, "-wal")).is_ok_and(|metadata| metadata.len() > 0)
}

fn ensure_file(options: &SqliteOptions) -> Result<(), DatabaseError> {
    if !options.create {
        return require_file(&options.path);
    }
    create_private(&options.path).map_err(|error| in_file(&options.path, &io_reason(&error)))
}

fn require_file(path: &Path) -> Result<(), DatabaseError> {
    let reason = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => "it is a folder: name a file in it".to_owned(),
        Ok(_) => "it is a device, a pipe or a socket, not a file".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DatabaseError::unavailable(format!("there is no database file {}", ShownPath(path))));
        }
        Err(error) => io_reason(&error),
    };
    Err(in_file(path, &reason))
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
fn connect(
    options: &SqliteOptions,
    name: &str,
    pragmas: &str,
) -> Result<OpenConnection<SqliteConnection>, DatabaseError> {
    try_connect(options, name, pragmas).map_err(|reason| refusal(&options.path, &reason))
}

/// Opens the file like [`connect`]. The error has the words of SQLite.
fn try_connect(
    options: &SqliteOptions,
    name: &str,
    pragmas: &str,
) -> Result<OpenConnection<SqliteConnection>, String> {
    let connection = SqliteConnection::establish(name).map_err(|error| error.to_string())?;
    let mut connection = OpenConnection::new(connection);
    // The time limit is set first, since the switch to WAL may have to wait for other processes too.
    let pragmas = format!("PRAGMA busy_timeout = {}; {pragmas}", options.busy_timeout.as_millis());
    match connection.batch_execute(&pragmas) {
        Ok(()) => Ok(connection),
        Err(error) => {
            let reason = error.to_string();
            // The file may be a sound one beside the WAL of another, such as a backup that was just restored.
            // To close the connection would move that WAL into it.
            if reason.contains(MALFORMED) {
                connection.leave_open();
            }
            Err(reason)
        }
    }
}

/// What SQLite says if the content of a file is not valid.
const MALFORMED: &str = "malformed";

/// Explains why SQLite could not open a file.
fn refusal(path: &Path, reason: &str) -> DatabaseError {
    if let Err(refusal) = require_file(path) {
        return refusal;
    }
    let folder = match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => folder.display().to_string(),
        None => ".".to_owned(),
    };
    let beside = format!("write to its folder {folder}, where SQLite keeps the files -wal and -shm");
    if reason.contains(CANNOT_OPEN)
        && let Err(error) = File::open("/dev/null")
        && error.raw_os_error() == Some(TOO_MANY_OPEN_FILES)
    {
        return in_file(
            path,
            "the process may open no more files: raise the limit (ulimit -n, LimitNOFILE=)",
        );
    }
    let known = [
        (
            MALFORMED,
            "the file is damaged, or the -wal and -shm beside it belong to another one: if you have just restored or replaced \
             it, remove -wal and -shm; otherwise restore a backup, with the service stopped"
                .to_owned(),
        ),
        ("file is not a database", "the file is not a database of SQLite: another file was meant".to_owned()),
        ("database or disk is full", "the disk is full".to_owned()),
        ("disk I/O error", "the disk is full, or it cannot be read or written".to_owned()),
        (
            "database is locked",
            "another program has locked the file (database is locked): wait until it is done, or stop it"
                .to_owned(),
        ),
        (
            "readonly database",
            format!("the user of this process may not write the file, or may not {beside}"),
        ),
        (CANNOT_OPEN, format!("the user of this process may not read the file, or may not {beside}")),
    ];
    let plain = known.into_iter().find(|(words, _)| reason.contains(words)).map(|(_, plain)| plain);
    in_file(path, plain.as_deref().unwrap_or(reason))
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

fn in_file(path: &Path, reason: &str) -> DatabaseError {
    DatabaseError::unavailable(format!("{}: {reason}", ShownPath(path)))
}
