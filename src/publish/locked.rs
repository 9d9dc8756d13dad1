//! Changes of an existing file, one at a time.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use super::{Draft, Existing, folder_of, is_at, remove_leftovers};

/// The most attempts to lock the file. One fails only if another process replaced the file meanwhile, so this
/// many mean that a process replaces it all the time.
const LOCK_ATTEMPTS_MAX: u32 = 1_000;

/// A file that this process may change: every other that changes it through this type waits until the value
/// is dropped (flock(2)). So it is read under the lock, and what is written loses no change of others.
#[derive(Debug)]
pub struct LockedFile {
    lock: File,
    path: PathBuf,
}

impl LockedFile {
    /// Waits for the lock of an existing file.
    ///
    /// # Errors
    /// The file cannot be opened or locked, or is a device, a pipe or a folder, which must not be replaced.
    pub fn lock(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let lock = File::open(path)?;
            lock.lock()?;
            // Another process may have replaced the file before the lock was held: then this is the lock of
            // the old file.
            if is_at(&lock, path)? {
                remove_leftovers(folder_of(path));
                return Ok(Self { lock, path: path.to_owned() });
            }
        }
        Err(io::Error::other("other processes change the file all the time"))
    }

    /// Creates the file, which only its owner can access, and locks it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the file exists. Or it cannot be written.
    pub fn create(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let lock = publish_locked(Draft::create(path)?, bytes, Existing::Keep)?;
        Ok(Self { lock, path: path.to_owned() })
    }

    /// Replaces the content of the file. It keeps its owner, its permissions and its lock.
    ///
    /// # Errors
    /// The file cannot be written. It has its earlier content then, unless only the sync of its folder
    /// failed.
    pub fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let existing = self.lock.metadata()?;
        let mut draft = Draft::create(&self.path)?;
        draft.file().set_permissions(existing.permissions())?;
        fchown(draft.file(), Some(existing.uid()), Some(existing.gid()))?;
        self.lock = publish_locked(draft, bytes, Existing::Replace)?;
        Ok(())
    }

    /// Deletes the file.
    ///
    /// # Errors
    /// The file cannot be deleted.
    pub fn delete(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Publishes the draft with this content. Returns its lock, which [`Draft::create`] has taken.
fn publish_locked(mut draft: Draft, bytes: &[u8], existing: Existing) -> io::Result<File> {
    draft.file().write_all(bytes)?;
    let lock = draft.file().try_clone()?;
    draft.publish(existing)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, folder.path(), Path::new("/dev/null")] {
            let error = LockedFile::lock(path).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(LockedFile::create(&path, b"").unwrap());
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let path = path.clone();
                thread::spawn(move || {
                    for number in 0..20 {
                        let mut file = LockedFile::lock(&path).unwrap();
                        let text = fs::read_to_string(&path).unwrap();
                        file.replace(format!("{text}{thread}-{number}\n").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 160);
    }

    #[test]
    fn a_replaced_and_a_new_file_are_locked_until_they_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        for replaces in [false, true] {
            let path = folder.path().join(format!("file-{replaces}"));
            let mut held = LockedFile::create(&path, b"first").unwrap();
            assert_eq!(LockedFile::create(&path, b"").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            if replaces {
                held.replace(b"second").unwrap();
            }
            let (sender, receiver) = mpsc::channel();
            let waiting = path.clone();
            let other = thread::spawn(move || sender.send(LockedFile::lock(&waiting).is_ok()).unwrap());
            assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "locked already");
            drop(held);
            assert!(receiver.recv().unwrap());
            other.join().unwrap();
        }
    }
}
