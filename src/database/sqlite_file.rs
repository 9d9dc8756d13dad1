//! Notices that the file of a SQLite database was moved, deleted, replaced or truncated while it is open.
//!
//! SQLite keeps writing to the file that it opened, wherever that is now. What it acknowledges is then not in
//! the file that the next start opens. So the service does not serve such a file.
//!
//! A file that another program overwrites in place keeps its identity. It is noticed if it becomes shorter:
//! SQLite shortens a file only in VACUUM, which the service does not run. A longer or equally long content is
//! not noticed.
//!
//! Nothing here opens the file: closing it would release SQLite's locks, which belong to the process.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::database::DatabaseError;

/// Identifies a file, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self::from(&file))
    }
}

impl From<&Metadata> for FileId {
    fn from(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// The file of an open database, with its WAL.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    id: FileId,
    /// The WAL, from the first check that finds it. SQLite keeps the file while a connection is open.
    wal: OnceLock<FileId>,
    /// The greatest length that the file has had, in bytes.
    length: AtomicU64,
    /// Whether the file has become shorter. What it contained is lost, so it is not served again.
    is_truncated: AtomicBool,
    is_present: AtomicBool,
}

impl DatabaseFile {
    /// Remembers the file at this path, which has just been opened.
    pub(super) fn opened(path: &Path) -> Result<Self, DatabaseError> {
        let id = FileId::of(path).map_err(|_| gone(path))?;
        Ok(Self {
            path: path.to_owned(),
            id,
            wal: OnceLock::new(),
            length: AtomicU64::new(0),
            is_truncated: AtomicBool::new(false),
            is_present: AtomicBool::new(true),
        })
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Compares the file at the path with the open one, logs a change, and remembers the result for
    /// [`DatabaseFile::require_present`].
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if the file at the path is not the open one.
    pub(super) fn check(&self) -> Result<(), DatabaseError> {
        let is_present = self.is_unchanged();
        match (self.is_present.swap(is_present, Ordering::AcqRel), is_present) {
            (true, false) if self.is_truncated.load(Ordering::Acquire) => tracing::error!(
                "The database file {} was truncated or overwritten while it was open; it is no longer served: stop the \
                 service, and restore a backup",
                self.path.display()
            ),
            (true, false) => tracing::error!(
                "The database file {} or its WAL was moved, deleted or replaced while it was open; it is no longer \
                 served: put it back, or restart the service with the right file",
                self.path.display()
            ),
            (false, true) => tracing::info!("The database file {} is back", self.path.display()),
            _ => {}
        }
        self.require_present()
    }

    /// Returns the result of the last check.
    ///
    /// # Errors
    /// As [`DatabaseFile::check`].
    pub(crate) fn require_present(&self) -> Result<(), DatabaseError> {
        if self.is_present.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_truncated = self.is_truncated.load(Ordering::Acquire);
        Err(if is_truncated { truncated(&self.path) } else { gone(&self.path) })
    }

    fn is_unchanged(&self) -> bool {
        let wal = FileId::of(&with_suffix(&self.path, "-wal")).ok();
        let known_wal = self.wal.get().copied().or_else(|| {
            let _ = self.wal.set(wal?);
            wal
        });
        let Ok(file) = fs::metadata(&self.path) else { return false };
        if FileId::from(&file) != self.id || wal != known_wal {
            return false;
        }
        if file.len() < self.length.fetch_max(file.len(), Ordering::AcqRel) {
            self.is_truncated.store(true, Ordering::Release);
        }
        !self.is_truncated.load(Ordering::Acquire)
    }
}

/// Returns the path of a file that is kept beside the database: its WAL, or its key.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn gone(path: &Path) -> DatabaseError {
    DatabaseError::unavailable(format!(
        "the database file {} was moved, deleted or replaced while it was open",
        path.display()
    ))
}

fn truncated(path: &Path) -> DatabaseError {
    DatabaseError::unavailable(format!(
        "the database file {} was truncated or overwritten while it was open",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_present_only_while_it_is_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("db"), folder.path().join("aside"));
        fs::write(&path, "one").unwrap();
        let file = DatabaseFile::opened(&path).unwrap();
        assert!(file.check().is_ok());

        fs::rename(&path, &aside).unwrap();
        assert!(file.check().is_err() && file.require_present().is_err());
        fs::write(&path, "two").unwrap();
        assert!(file.check().is_err());
        fs::rename(&aside, &path).unwrap();
        assert!(file.check().is_ok() && file.require_present().is_ok());
    }

    #[test]
    fn a_file_that_becomes_shorter_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, "one").unwrap();
        let file = DatabaseFile::opened(&path).unwrap();
        assert!(file.check().is_ok());
        fs::write(&path, "longer").unwrap();
        assert!(file.check().is_ok(), "SQLite makes a file longer");

        fs::write(&path, "two").unwrap();
        assert!(file.check().is_err());
        fs::write(&path, "longer again").unwrap();
        assert!(file.check().is_err(), "what it contained is still lost");
    }

    #[test]
    fn the_wal_is_part_of_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let (path, wal) = (folder.path().join("db"), folder.path().join("db-wal"));
        fs::write(&path, "one").unwrap();
        let file = DatabaseFile::opened(&path).unwrap();
        assert!(file.check().is_ok());
        fs::write(&wal, "log").unwrap();
        assert!(file.check().is_ok());

        fs::remove_file(&wal).unwrap();
        assert!(file.check().is_err());
    }
}
