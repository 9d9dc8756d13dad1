//! Backup of a SQLite store, which may be in use, to one file.

use std::{
    io,
    path::{Path, PathBuf},
};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text};

use crate::{
    database::{
        Connections, DatabaseError,
        sqlite_open::{SqliteOptions, open_reader},
    },
    domain::io_reason,
    publish::{self, Draft, Existing},
    store::Store,
};

/// Reasons why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store is on PostgreSQL.
    #[error("backup is for SQLite only; on PostgreSQL use pg_dump or pg_basebackup")]
    NotSqlite,
    /// The target file exists.
    #[error("{} {}; nothing was written", .0.display(), publish::occupant(.0))]
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
    #[error("cannot write {}: {}", path.display(), reason(source))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The disk of the file is full.
    #[error("cannot write {}: the disk is full; nothing was left there", .0.display())]
    DiskFull(PathBuf),
    /// The path is not UTF-8, which SQLite requires.
    #[error("cannot create {}: the path is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// The database cannot be read, or its copy cannot be written.
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// The integrity check of the written file failed.
    #[error("the backup was damaged and has been deleted: {0}")]
    Damaged(String),
}

/// Says why a file cannot be written.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "the user of this process may not write to its folder".to_owned(),
        _ => io_reason(error),
    }
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
        let folder = publish::folder_of(path);
        if !folder.is_dir() {
            return Err(BackupError::NoFolder { path: path.to_owned(), folder: folder.to_owned() });
        }
        publish::remove_leftovers(folder);
        let draft = Draft::create(path).map_err(|source| file_error(path, source))?;
        write(threads.options(), draft.path()).map_err(|error| match error {
            BackupError::Store(error) if error.chain().contains("disk is full") => {
                BackupError::DiskFull(path.to_owned())
            }
            other => other,
        })?;
        draft.publish(Existing::Keep).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
            _ => file_error(path, source),
        })
    }
}

fn file_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::File { path: path.to_owned(), source }
}

/// Writes the backup to the empty file `draft`, which SQLite treats as a new database. The file keeps its
/// permissions.
fn write(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let name = draft.to_str().ok_or_else(|| BackupError::NotUtf8(draft.to_owned()))?;
    let mut source = open_reader(options)?;
    // With `query_only`, SQLite refuses VACUUM INTO too, although it writes only to the draft.
    source
        .batch_execute("PRAGMA query_only = OFF")
        .and_then(|()| sql_query("VACUUM INTO ?").bind::<Text, _>(name).execute(&mut *source).map(drop))
        .map_err(DatabaseError::from)?;
    finish(options, draft)
}

/// Removes the number of write checks from the copy, so that a service whose open file is overwritten with it
/// notices that, and checks the integrity of the whole copy.
fn finish(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let copy = SqliteOptions { path: draft.to_owned(), create: false, ..options.clone() };
    let mut copy = open_reader(&copy)?;
    // Without a journal on the disk: a draft that is not finished is deleted.
    copy.batch_execute("PRAGMA query_only = OFF; PRAGMA journal_mode = MEMORY; PRAGMA user_version = 0")
        .map_err(DatabaseError::from)?;
    let row: QuickCheckRow = sql_query("SELECT quick_check AS value FROM pragma_quick_check LIMIT 1")
        .get_result(&mut *copy)
        .map_err(DatabaseError::from)?;
    if row.value == "ok" { Ok(()) } else { Err(BackupError::Damaged(row.value)) }
}
