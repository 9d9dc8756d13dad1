//! A private copy of a SQLite file with its -wal file, for a reader that must leave no file beside the
//! original.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::TempDir;

use super::sqlite_file::{FileId, with_suffix};

/// A folder for temporary files that only this user can read, with the copy. Dropping it removes both; a
/// connection that is open keeps the content.
pub(super) struct PrivateCopy {
    folder: TempDir,
}

impl PrivateCopy {
    /// Copies a database and its -wal file, which no other program has open.
    ///
    /// # Errors
    /// An I/O error, of the kind `ResourceBusy` if another program has changed one of the files meanwhile.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let only_this_user = Permissions::from_mode(0o700);
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("kairos-identity-").permissions(only_this_user).tempdir()?;
        let copy = Self { folder };
        let (wal, wal_copy) = (with_suffix(path, "-wal"), with_suffix(&copy.path(), "-wal"));
        let states = || Ok::<_, io::Error>((state(path)?, state(&wal)?, with_suffix(path, "-shm").exists()));
        let before = states()?;
        copy_file(path, &copy.path())?;
        copy_file(&wal, &wal_copy)?;
        if states()? != before {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(copy)
    }

    /// The path of the copy.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("copy.sqlite3")
    }
}

/// Returns what changes when a program replaces the file or writes to it.
fn state(path: &Path) -> io::Result<(FileId, u64, SystemTime)> {
    let metadata = fs::metadata(path)?;
    Ok((FileId::from(&metadata), metadata.len(), metadata.modified()?))
}

/// Copies the content into a new file of this user.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_content_and_is_removed_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, "pages").unwrap();
        fs::write(with_suffix(&path, "-wal"), "log").unwrap();

        let copy = PrivateCopy::of(&path).unwrap();
        let copied = copy.path();
        assert_eq!(fs::read(&copied).unwrap(), b"pages");
        assert_eq!(fs::read(with_suffix(&copied, "-wal")).unwrap(), b"log");
        assert_eq!(fs::metadata(copied.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(copy);
        assert!(!copied.parent().unwrap().exists());

        fs::remove_file(with_suffix(&path, "-wal")).unwrap();
        assert!(PrivateCopy::of(&path).is_err());
        assert!(!copied.parent().unwrap().exists());
    }
}
