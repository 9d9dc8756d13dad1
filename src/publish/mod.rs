//! Publishes files: a file gets its name only when all of its bytes are on the disk.
//!
//! [`Draft`] is the only way in which this program creates a file that others read: a mail, a backup, a
//! report, an export, a key. The bytes go to a hidden file in the same folder, `.<name>.<digits>.part`.
//! The draft is synced and gets its name, then its folder is synced. An error of any step is returned, and
//! the draft is deleted. A killed process leaves its draft; the next run deletes it ([`remove_leftovers`]).
//! [`LockedFile`] changes a file that exists.

mod locked;

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

pub use self::locked::LockedFile;

/// Number of names that are tried for a draft. A name can be taken only by a process with the same process
/// id: one in another container, or an earlier one that was killed and left its drafts.
const NAMES_TRIED_MAX: u32 = 64;

/// The most bytes of the name of a file or folder.
const NAME_BYTES_MAX: usize = 255;

/// The ending of the name of a draft.
const ENDING: &str = ".part";

/// What SQLite appends to the name of a draft for the journal that it keeps beside it.
const JOURNAL: &str = "-journal";

/// Number of hexadecimal digits in the name of a draft.
const DIGITS: usize = 16;

/// What happens if a file has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The file is replaced.
    Replace,
    /// The file is kept, and the publication fails with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// A file that is being written and does not have its name yet. Only its owner can access it. It is deleted
/// when it is dropped before [`Draft::publish`].
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// Creates an empty draft in the folder of `target`, which must exist.
    ///
    /// # Errors
    /// The file cannot be created, or `target` names no file.
    pub fn create(target: &Path) -> io::Result<Self> {
        for _ in 0..NAMES_TRIED_MAX {
            let path = draft_path(target)?;
            let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(|error| in_folder(folder_of(target), &error))?,
            };
            // The lock shows other processes that the draft is in use. A process that removes leftovers may
            // have opened the file before: it then holds the lock, or has deleted the file, and the next name
            // is tried. On a file system without locks, the draft stays unlocked.
            let is_locked_by_other = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if !is_locked_by_other && is_at(&file, &path)? {
                return Ok(Self { file, path, target: target.to_owned() });
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for a draft is taken"))
    }

    /// Returns the path of the draft, for a writer that opens it itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open draft. A buffer around it must be flushed before [`Draft::publish`].
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Syncs the draft, gives it its name, and syncs the folder.
    ///
    /// # Errors
    /// A step failed. The name is then unused or still that of the old file. Only if the last step, the sync
    /// of the folder, failed, the new file has the name already.
    pub fn publish(self, existing: Existing) -> io::Result<()> {
        self.file.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(&self.path, &self.target)?,
            Existing::Keep => link_new(&self.path, &self.target)?,
        }
        sync_folder(folder_of(&self.target))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename nothing is at this path. After a link, the file stays under its other name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Publishes `bytes` as the file `target`.
///
/// # Errors
/// Like [`Draft::create`] and [`Draft::publish`], or the bytes cannot be written.
pub fn publish(target: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let mut draft = Draft::create(target)?;
    draft.file().write_all(bytes)?;
    draft.publish(existing)
}

/// The folders that were created for a file. Those that are still empty when this is dropped are deleted.
#[derive(Debug)]
pub struct NewFolders {
    /// The innermost first.
    missing: Vec<PathBuf>,
}

impl NewFolders {
    /// Creates `folder` with its parents, if it is missing. It gets the permissions that the process gives to
    /// new folders.
    ///
    /// # Errors
    /// A folder cannot be created. None is left then.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|ancestor| !ancestor.exists()).map(Path::to_owned);
        let folders = Self { missing: missing.collect() };
        fs::create_dir_all(folder)?;
        Ok(folders)
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        // A folder that is in use is not empty, and cannot be deleted.
        let _ = self.missing.iter().try_for_each(fs::remove_dir);
    }
}

/// Creates a folder that only its owner can access, with its parents, if it is missing.
///
/// # Errors
/// The folder cannot be created or synced.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if folder.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = folder.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    missing.into_iter().map(folder_of).try_for_each(sync_folder)
}

/// Checks that a file can be written to a folder, or that the folder can be created. Nothing is left behind.
///
/// # Errors
/// A file is where a folder is needed, or the folder in which the next file or folder would be created cannot
/// be written. The error names it.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    let bytes = 0;
    check_room(folder, bytes)
}

/// Checks that a file with this number of bytes can be written to a folder, or to one that can be created.
/// Nothing is left behind.
///
/// # Errors
/// Like [`check_folder`], or the disk has no room for the bytes.
pub fn check_room(folder: &Path, bytes: usize) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let existing = folder.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok());
    let existing = existing.unwrap_or(Path::new("/"));
    let refused =
        |kind, reason: String| Err(io::Error::new(kind, format!("{} {reason}", existing.display())));
    if !existing.is_dir() {
        return match fs::read_link(existing) {
            Ok(target) => refused(
                io::ErrorKind::NotADirectory,
                format!("is not a folder, but a symbolic link to {}", target.display()),
            ),
            Err(_) => refused(io::ErrorKind::NotADirectory, "is not a folder".to_owned()),
        };
    }
    let missing = folder.strip_prefix(existing).unwrap_or(Path::new(""));
    if missing.components().any(|part| part.as_os_str().len() > NAME_BYTES_MAX) {
        let text = format!("the name of a folder is longer than {NAME_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let written =
        Draft::create(&existing.join("check")).and_then(|mut draft| draft.file().write_all(&vec![0; bytes]));
    written.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "the user of this process may not write to the folder".to_owned()
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is read-only: cannot write to the folder".to_owned()
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                format!(
                    "the disk is full: there is no room for {} KiB in the folder",
                    bytes.div_ceil(1024).max(1)
                )
            }
            io::ErrorKind::NotFound => "no file can be created in the folder".to_owned(),
            _ => format!("{error}: cannot write to the folder"),
        };
        io::Error::new(error.kind(), format!("{text} {}", existing.display()))
    })
}

/// Deletes the drafts that killed processes have left in `folder`. Keeps those that a process is writing, and
/// all other files. A file that cannot be deleted is logged; a folder that cannot be read is skipped, since
/// leftovers do not disturb the next run.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if !path.file_name().and_then(OsStr::to_str).is_some_and(is_draft_name) {
            continue;
        }
        match remove_if_unused(&path) {
            Ok(true) => tracing::info!(path = %path.display(), "Deleted the unfinished file of a killed run"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "Unfinished file of a killed run not deleted");
            }
        }
    }
}

/// Deletes a draft, or the journal of a draft, unless a process has locked the draft. Returns true if it
/// deleted the file.
fn remove_if_unused(path: &Path) -> io::Result<bool> {
    let journal_of = path.to_str().and_then(|path| path.strip_suffix(JOURNAL)).map(Path::new);
    let draft = match File::open(journal_of.unwrap_or(path)) {
        // A journal whose draft is gone is a leftover too.
        Err(error) if error.kind() == io::ErrorKind::NotFound && journal_of.is_some() => {
            return remove(path);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match draft.try_lock() {
        Ok(()) => remove(path),
        Err(TryLockError::WouldBlock) => Ok(false),
        // Without locks, nothing shows whether the file is in use.
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Deletes a file. Returns false if it is gone already.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// True for the names that [`draft_path`] makes, and those of the journals beside them.
fn is_draft_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.') else { return false };
    let Some(rest) = rest.strip_suffix(JOURNAL).unwrap_or(rest).strip_suffix(ENDING) else { return false };
    let is_digits = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    rest.rsplit_once('.').is_some_and(|(name, digits)| !name.is_empty() && is_digits(digits))
}

/// Returns a path for a draft of `target` that this process has not used before.
fn draft_path(target: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = target.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end with the name of a file")
    })?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut draft = OsStr::new(".").to_owned();
    draft.push(name);
    draft.push(format!(".{:08x}{number:08x}{ENDING}", process::id()));
    Ok(folder_of(target).join(draft))
}

/// Says that a file cannot be created in a folder, with the name of the folder.
fn in_folder(folder: &Path, error: &io::Error) -> io::Error {
    let reason = match error.kind() {
        // The system also says this of a folder such as /proc.
        io::ErrorKind::NotFound if folder.is_dir() => {
            format!("no file can be created in the folder {}", folder.display())
        }
        io::ErrorKind::NotFound => format!("there is no folder {}", folder.display()),
        io::ErrorKind::PermissionDenied => {
            format!("the user of this process may not create a file in the folder {}", folder.display())
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), reason)
}

/// True if `path` names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file a second name. Fails if a file has this name already.
fn link_new(draft: &Path, target: &Path) -> io::Result<()> {
    // Unlike a rename, a hard link never replaces a file. A file system without hard links gets a rename.
    fs::hard_link(draft, target).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        _ if target.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        _ => fs::rename(draft, target),
    })
}

/// Syncs the names in a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Says what is at the path of a file that must not exist, to follow the path in a message.
#[must_use]
pub fn occupant(path: &Path) -> &'static str {
    if path.is_dir() { "is a folder: name a file in it" } else { "already exists" }
}

/// Returns the folder that contains `path`.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_published_file_is_complete_private_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("mail.eml");
        publish(&target, b"one", Existing::Keep).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["mail.eml"]);
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("mail.eml");
        publish(&target, b"one", Existing::Keep).unwrap();
        let kept = publish(&target, b"two", Existing::Keep).unwrap_err();
        assert_eq!((kept.kind(), fs::read(&target).unwrap()), (io::ErrorKind::AlreadyExists, b"one".into()));
        publish(&target, b"two", Existing::Replace).unwrap();
        assert_eq!((fs::read(&target).unwrap(), names(folder.path()).len()), (b"two".into(), 1));
    }

    #[test]
    fn a_draft_that_is_not_published_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = Draft::create(&folder.path().join("report.json")).unwrap();
        draft.file().write_all(b"half").unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        drop(draft);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn only_the_drafts_of_ended_runs_are_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let live = Draft::create(&folder.path().join("backup.sqlite3")).unwrap();
        let live_journal = format!("{}{JOURNAL}", live.path().file_name().unwrap().to_str().unwrap());
        fs::write(folder.path().join(&live_journal), "x").unwrap();
        let leftovers = [
            ".backup.sqlite3.0000002a00000001.part",
            ".backup.sqlite3.0000002a00000001.part-journal",
            ".backup.sqlite3.0000002a00000002.part-journal",
        ];
        let others = [
            ".part",
            ".download.part",
            ".x.0000002a0000000.part",
            "backup.0000002a00000001.part",
            "mail.eml",
        ];
        for name in leftovers.into_iter().chain(others) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        remove_leftovers(folder.path());
        let mut kept: Vec<_> = others.iter().map(ToString::to_string).collect();
        kept.push(live_journal);
        kept.push(live.path().file_name().unwrap().to_str().unwrap().to_owned());
        kept.sort();
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn a_folder_is_checked_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(&folder.path().join("deep/mail")).unwrap();
        assert!(names(folder.path()).is_empty());
        fs::write(folder.path().join("data"), "x").unwrap();
        let error = check_folder(&folder.path().join("data/mail")).unwrap_err().to_string();
        assert!(error.ends_with("data is not a folder"), "{error}");
        let in_proc = check_folder(Path::new("/proc/mail")).unwrap_err().to_string();
        assert_eq!(in_proc, "no file can be created in the folder /proc");
        std::os::unix::fs::symlink("/nowhere", folder.path().join("link")).unwrap();
        let dangling = check_folder(&folder.path().join("link/mail")).unwrap_err().to_string();
        assert!(dangling.ends_with("link is not a folder, but a symbolic link to /nowhere"), "{dangling}");
        let long = check_folder(&folder.path().join("x".repeat(256))).unwrap_err().to_string();
        assert!(long.contains("longer than 255 bytes"), "{long}");
        check_room(folder.path(), 4096).unwrap();
        assert_eq!(names(folder.path()), ["data", "link"]);
    }

    #[test]
    fn a_missing_folder_and_a_path_without_a_file_name_are_errors() {
        let missing = publish(Path::new("/nowhere/x"), b"", Existing::Keep).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(Draft::create(Path::new("/")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
