//! A copy of a running store of SQLite in one file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text};

use super::{
    Store, StoreError,
    connection::{
        Connections,
        sqlite::{SqliteOptions, open_reader},
    },
};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store is PostgreSQL's.
    #[error("this is for SQLite; on PostgreSQL use pg_dump, or a copy of the server (pg_basebackup)")]
    NotSqlite,
    /// There is such a file.
    #[error("{} is there already, and nothing was written", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written, or the database not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was written does not read as it should.
    #[error("the backup is damaged, and was deleted: {0}")]
    Damaged(String),
}

#[derive(QueryableByName)]
struct Words {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Store {
    /// Writes all that was committed when it began into a new file that only its owner may read, and that appears under its name once it is whole
    /// and on the disk. Writers go on meanwhile. Blocks the calling thread: for a command.
    ///
    /// # Errors
    /// [`BackupError`]; there is no file then.
    pub fn back_up(&self, path: &Path) -> Result<(), BackupError> {
        let Connections::Sqlite(threads) = &self.connections else { return Err(BackupError::NotSqlite) };
        if path.exists() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        // Of this process: what a killed one has left is in nobody's way.
        let draft = path.with_added_extension(format!("{}.part", std::process::id()));
        let written = write(threads.options(), &draft).and_then(|()| publish(&draft, path));
        let _ = fs::remove_file(&draft);
        written
    }
}

fn write(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let failed = |error: io::Error| StoreError::unavailable(format!("{}: {error}", draft.display()));
    // SQLite takes an empty file for a new one, and keeps its mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(failed)?;
    let name = draft.to_str().ok_or_else(|| StoreError::unavailable("the path is not UTF-8"))?;
    let mut source = open_reader(options)?;
    source
        .batch_execute("PRAGMA query_only = OFF")
        .and_then(|()| sql_query("VACUUM INTO ?").bind::<Text, _>(name).execute(&mut source).map(drop))
        .map_err(StoreError::from)?;
    File::open(draft).and_then(|file| file.sync_all()).map_err(failed)?;
    check(options, draft)
}

/// Reads the whole copy once.
fn check(options: &SqliteOptions, draft: &Path) -> Result<(), BackupError> {
    let copy = SqliteOptions { path: draft.to_owned(), create: false, ..options.clone() };
    let mut copy = open_reader(&copy)?;
    let words: Words = sql_query("SELECT quick_check AS value FROM pragma_quick_check LIMIT 1")
        .get_result(&mut copy)
        .map_err(StoreError::from)?;
    if words.value == "ok" { Ok(()) } else { Err(BackupError::Damaged(words.value)) }
}

/// Gives the file its name, unless another has it by now.
fn publish(draft: &Path, path: &Path) -> Result<(), BackupError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Unlike a rename, a link replaces nothing; some file systems have none.
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
        Err(error) => Err(StoreError::unavailable(format!("{}: {error}", path.display())).into()),
    }
}
