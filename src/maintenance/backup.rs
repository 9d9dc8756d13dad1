//! Backup of a SQLite store, which may be in use, to one file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text};

use crate::store::{
    Store, StoreError,
    connection::{
        Connections,
        sqlite::{SqliteOptions, open_reader},
    },
};

/// Reasons why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store is on PostgreSQL.
    #[error("backup is for SQLite only; on PostgreSQL use pg_dump or pg_basebackup")]
    NotSqlite,
    /// The target file exists.
    #[error("{} already exists; nothing was written", .0.display())]
    Exists(PathBuf),
    /// The folder of the target file is missing.
    #[error("cannot create {}: there is no folder {}: create it, or choose another file", path.display(), folder.display())]
    NoFolder {
        /// The target file.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is not UTF-8, which SQLite requires.
    #[error("cannot create {}: the path is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// The database cannot be read, or its copy cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The integrity check of the written file failed.
    #[error("the backup was damaged and has been deleted: {0}")]
    Damaged(String),
}

#[derive(QueryableByName)]
struct QuickCheckRow {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Store {
    /// Writes all data that is committed when the backup starts to a new file that only its owner can access.
    /// The file gets its name when it is complete and synced to disk. Writers continue meanwhile. The call
    /// blocks its thread, so it is for a command, not for the server.
    ///
    /// # Errors
    /// [`BackupError`]. No file is left then, unless only the sync of its directory failed.
    pub fn back_up(&self, path: &Path) -> Result<(), BackupError> {
        let Connections::Sqlite(threads) = &self.connections else { return Err(BackupError::NotSqlite) };
        if path.exists() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        let folder = folder_of(path);
        if !folder.is_dir() {
            return Err(BackupError::NoFolder { path: path.to_owned(), folder: folder.to_owned() });
        }
        // The name contains the process id, so that the leftover of a killed process is not in the way.
        let draft = path.with_added_extension(format!("{}.part", std::process::id()));
        let written = write(threads.options(), &draft).and_then(|()| publish(&draft, path));
        let _ = fs::remove_file(&draft);
        written
    }
}

fn write(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { path: draft.to_owned(), source };
    // SQLite treats an empty file as a new database, and keeps its mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(failed)?;
    let name = draft.to_str().ok_or_else(|| BackupError::NotUtf8(draft.to_owned()))?;
    let mut source = open_reader(options)?;
    source
        .batch_execute("PRAGMA query_only = OFF")
        .and_then(|()| sql_query("VACUUM INTO ?").bind::<Text, _>(name).execute(&mut source).map(drop))
        .map_err(StoreError::from)?;
    File::open(draft).and_then(|file| file.sync_all()).map_err(failed)?;
    check(options, draft)
}

/// Checks the integrity of the whole copy.
fn check(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let copy = SqliteOptions { path: draft.to_owned(), create: false, ..options.clone() };
    let mut copy = open_reader(&copy)?;
    let row: QuickCheckRow = sql_query("SELECT quick_check AS value FROM pragma_quick_check LIMIT 1")
        .get_result(&mut copy)
        .map_err(StoreError::from)?;
    if row.value == "ok" { Ok(()) } else { Err(BackupError::Damaged(row.value)) }
}

/// Publishes the file under its name, unless a file with that name exists by now.
fn publish(draft: &Path, path: &Path) -> Result<(), BackupError> {
    let folder = folder_of(path);
    // Unlike a rename, a hard link never replaces a file. A file system without hard links gets a rename.
    let linked = fs::hard_link(draft, path).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::rename(draft, path),
    });
    let named = linked.and_then(|()| File::open(folder)?.sync_all());
    match named {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists(path.to_owned()))
        }
        Err(source) => Err(BackupError::File { path: path.to_owned(), source }),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
