//! Reads the files that settings and flags name: settings, keys, certificates, callers.
//!
//! A file that cannot be used is refused with an error that names it and the way out: it is missing, a folder
//! or a device, too large or not UTF-8, it begins with a byte order mark, or other users may change it.

use std::{
    fmt,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::domain::io_reason;

/// The most bytes of a file. A callers file with thousands of callers, and the bundle of all public
/// authorities, have less than a megabyte; a larger file was named by mistake.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The permissions with which other users may change a file.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a folder in which only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// The permission with which the group of a file may read it.
const GROUP_READS: u32 = 0o040;

/// The permission with which all users may read a file.
const ALL_READ: u32 = 0o004;

/// The permissions of all users.
const ALL: u32 = 0o007;

/// The device that is always empty.
const EMPTY_DEVICE: &str = "/dev/null";

/// The byte order marks of UTF-8 and UTF-16, with which some editors begin a file.
const MARKS: [(&[u8], &str); 3] =
    [(b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", ShownPath(path))]
pub struct InputFileError {
    path: PathBuf,
    reason: Reason,
}

impl InputFileError {
    /// True if the file was read, but is not text.
    pub(crate) const fn is_not_text(&self) -> bool {
        matches!(self.reason, Reason::NotUtf8(_))
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("No such file")]
    Missing,
    #[error("it is a symbolic link to {}: No such file", .0.display())]
    DanglingLink(PathBuf),
    #[error("it is a {0}, not a file")]
    NotAFile(&'static str),
    #[error("it is a folder, not a file")]
    Folder,
    #[error("a folder in its path is a file")]
    NotInFolder,
    #[error("the user of this process may not read it")]
    Denied,
    #[error("it is larger than {} MiB: another file was meant", BYTES_MAX / 1024 / 1024)]
    TooLarge,
    #[error(
        "it begins with a byte order mark (BOM) of {0}: save it as UTF-8 without a BOM (an editor on Windows adds it)"
    )]
    ByteOrderMark(&'static str),
    #[error("it is not UTF-8 text: byte {0} is not valid")]
    NotUtf8(usize),
    #[error(
        "other users may change it (mode {mode:04o}): run `chmod go-w {}`, and check its content first",
        path.display()
    )]
    OthersWrite { mode: u32, path: PathBuf },
    #[error("it cannot be read: {}", io_reason(.0))]
    Io(io::Error),
}

impl InputFileError {
    fn new(path: &Path, reason: Reason) -> Self {
        Self { path: path.to_owned(), reason }
    }

    /// True if there is no such file.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self.reason, Reason::Missing | Reason::DanglingLink(_))
    }
}

/// Displays a path as it was given, and a relative path also as the absolute path that it means.
#[derive(Debug, Clone, Copy)]
pub struct ShownPath<'a>(pub &'a Path);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path) = self;
        match std::path::absolute(path) {
            Ok(absolute) if path.is_relative() => write!(f, "{} ({})", path.display(), absolute.display()),
            _ => write!(f, "{}", path.display()),
        }
    }
}

/// The text of a file that only its owner should read.
pub struct SecretFile {
    /// The text.
    pub text: String,
    /// A warning if other users may read or replace the file, or if it belongs to another user.
    pub warning: Option<String>,
}

/// Reads a file.
///
/// # Errors
/// [`InputFileError`] if the file cannot be read, is too large, or begins with a byte order mark.
pub fn read(path: &Path) -> Result<Vec<u8>, InputFileError> {
    open(path).and_then(|(file, _)| read_all(path, file))
}

/// Reads a text file.
///
/// # Errors
/// Like [`read`], or the file is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, InputFileError> {
    read(path).and_then(|bytes| text(path, bytes))
}

/// Reads a file that decides what is trusted.
///
/// # Errors
/// Like [`read`], or other users may change the file.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, InputFileError> {
    let (file, metadata) = open(path)?;
    refuse_writable_by_others(path, &metadata)?;
    read_all(path, file)
}

/// Reads a text file that decides what is trusted.
///
/// # Errors
/// Like [`read_text`], or other users may change the file.
pub fn read_trusted_text(path: &Path) -> Result<String, InputFileError> {
    read_trusted(path).and_then(|bytes| text(path, bytes))
}

/// Reads a text file with secrets or rights.
///
/// # Errors
/// Like [`read_text`], or other users may change the file.
pub fn read_secret(path: &Path) -> Result<SecretFile, InputFileError> {
    let (file, metadata) = open(path)?;
    refuse_writable_by_others(path, &metadata)?;
    let text = read_all(path, file).and_then(|bytes| text(path, bytes))?;
    let shared = shared(path, &metadata, "read", ALL_READ | GROUP_READS);
    let foreign = process_user().and_then(|user| of_other_user(path, &metadata, user));
    let warnings: Vec<_> = shared.into_iter().chain(foreign).chain(replaceable(path)).collect();
    Ok(SecretFile { text, warning: (!warnings.is_empty()).then(|| warnings.join("; ")) })
}

/// Returns a warning if other users may read or change a file with data of users. `None` if there is no such
/// file.
#[must_use]
pub fn shared_file_warning(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    shared(path, &metadata, "change", OTHERS_WRITE)
        .or_else(|| shared(path, &metadata, "read", ALL_READ | GROUP_READS))
}

/// Returns a warning if a file has one of the permissions with which other users may do this with it. A group
/// that was given the file on purpose does not count.
fn shared(path: &Path, metadata: &Metadata, action: &str, permissions: u32) -> Option<String> {
    let mode = metadata.permissions().mode() & 0o7777;
    let counted = if is_group_meant(metadata) { permissions & ALL } else { permissions };
    (metadata.is_file() && mode & counted != 0).then(|| {
        let (file, name) = (ShownPath(path), path.display());
        format!("other users may {action} {file} (mode {mode:04o}): run `chmod 600 {name}`")
    })
}

/// Returns a warning if other users may replace the file, because they may write to its folder. In a folder
/// with the sticky bit, only the owner of a file may.
fn replaceable(path: &Path) -> Option<String> {
    let folder = fs::canonicalize(path).ok()?.parent()?.to_owned();
    let mode = fs::metadata(&folder).ok()?.permissions().mode() & 0o7777;
    let may_replace = mode & OTHERS_WRITE != 0 && mode & STICKY == 0 && path.is_file();
    may_replace.then(|| {
        let (file, folder) = (ShownPath(path), folder.display());
        format!("other users may replace {file}, because they may write to its folder (mode {mode:04o}): run `chmod go-w {folder}`")
    })
}

/// Returns a warning if the file belongs to another user than root and that of this process: its owner may
/// change it, whatever its mode is. It is no error, because a container may see its files under another user.
fn of_other_user(path: &Path, metadata: &Metadata, process_user: u32) -> Option<String> {
    let owner = metadata.uid();
    let is_foreign = metadata.is_file() && owner != 0 && owner != process_user;
    is_foreign.then(|| {
        format!(
            "{} belongs to the user {owner}, who may change it: run `chown {process_user} {}`",
            ShownPath(path),
            path.display()
        )
    })
}

/// True if the service may have to read the file through its group: secrets that a container gets from the
/// system (mode 0440), or a file of root with the group of the service.
fn is_group_meant(metadata: &Metadata) -> bool {
    // Without `/proc`, the owner cannot be compared. False then leads to a warning rather than to none.
    let is_of_other_user = process_user().is_some_and(|user| user != metadata.uid());
    is_of_other_user || (metadata.uid() == 0 && metadata.gid() != 0)
}

/// Returns the number of the user of this process; `None` without `/proc`.
fn process_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|process| process.uid())
}

/// Opens a file, and returns it with its metadata.
fn open(path: &Path) -> Result<(File, Metadata), InputFileError> {
    let in_file = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => fs::read_link(path).map_or(Reason::Missing, Reason::DanglingLink),
            io::ErrorKind::IsADirectory => Reason::Folder,
            io::ErrorKind::NotADirectory => Reason::NotInFolder,
            io::ErrorKind::PermissionDenied => Reason::Denied,
            _ => Reason::Io(error),
        };
        InputFileError::new(path, reason)
    };
    let found = fs::metadata(path).map_err(in_file)?;
    if found.is_dir() {
        return Err(InputFileError::new(path, Reason::Folder));
    }
    // Checked first: opening a named pipe waits for its writer.
    if let Some(kind) = kind_without_content(path, &found) {
        return Err(InputFileError::new(path, Reason::NotAFile(kind)));
    }
    let file = File::open(path).map_err(in_file)?;
    let metadata = file.metadata().map_err(in_file)?;
    Ok((file, metadata))
}

/// Returns what a path names if that has no content of its own, and may wait for another program. The pipes
/// of a shell (`<(command)`, `/dev/stdin`) are read; they have no place in the file system.
fn kind_without_content(path: &Path, metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        fs::canonicalize(path).is_ok().then_some("named pipe")
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_block_device() || (kind.is_char_device() && !is_empty_device(metadata)) {
        Some("device")
    } else {
        None
    }
}

/// True for `/dev/null`, which is always empty.
fn is_empty_device(metadata: &Metadata) -> bool {
    fs::metadata(EMPTY_DEVICE).is_ok_and(|empty| empty.rdev() == metadata.rdev())
}

/// Refuses a file that other users may change. A pipe or a device is accepted: it stores no content that they
/// could have changed.
fn refuse_writable_by_others(path: &Path, metadata: &Metadata) -> Result<(), InputFileError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & OTHERS_WRITE != 0 {
        return Err(InputFileError::new(path, Reason::OthersWrite { mode, path: path.to_owned() }));
    }
    Ok(())
}

/// Reads the content, which may not be longer than `BYTES_MAX`.
fn read_all(path: &Path, file: File) -> Result<Vec<u8>, InputFileError> {
    let refused = |reason| InputFileError::new(path, reason);
    let mut bytes = Vec::new();
    let read =
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(Reason::Io(error)))?;
    if read as u64 > BYTES_MAX {
        return Err(refused(Reason::TooLarge));
    }
    match MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        Some((_, encoding)) => Err(refused(Reason::ByteOrderMark(encoding))),
        None => Ok(bytes),
    }
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, InputFileError> {
    let invalid = |error: std::string::FromUtf8Error| Reason::NotUtf8(error.utf8_error().valid_up_to() + 1);
    String::from_utf8(bytes).map_err(|error| InputFileError::new(path, invalid(error)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn refusal(content: &[u8]) -> String {
        let (_folder, path) = file(content, 0o600);
        let error = read_text(&path).unwrap_err().to_string();
        assert!(error.contains("secret.key"), "{error}");
        error
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        assert!(refusal(b"\xef\xbb\xbfkey").contains("(BOM) of UTF-8"));
        assert!(refusal(b"\xff\xfek\0").contains("(BOM) of UTF-16"));
    }

    #[test]
    fn a_file_that_is_too_large_or_not_text_is_refused() {
        assert!(refusal(&vec![b'#'; 40 << 20]).contains("larger than 4 MiB"));
        assert!(refusal(b"key\xff").contains("byte 4"));
    }

    #[test]
    fn a_file_of_another_user_is_warned_of() {
        const OTHER: u32 = 4_321;
        let (_folder, path) = file(b"key", 0o600);
        let own = process_user().unwrap();
        let warning = |process_user| of_other_user(&path, &fs::metadata(&path).unwrap(), process_user);
        assert_eq!(warning(own), None);
        if own == 0 {
            assert_eq!(warning(OTHER), None, "root may change every file");
            std::os::unix::fs::chown(&path, Some(OTHER), None).unwrap();
            assert_eq!(warning(OTHER), None);
            let read = read_secret(&path).unwrap().warning.unwrap();
            assert!(read.contains("belongs to the user 4321, who may change it: run `chown 0 "), "{read}");
        } else {
            let text = warning(own + 1).unwrap();
            assert!(text.contains(&format!("belongs to the user {own}, who may change it")), "{text}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&folder.path().join("x")).unwrap_err();
        assert!(missing.is_missing() && missing.to_string().contains("No such file"), "{missing}");
        assert!(read(folder.path()).unwrap_err().to_string().contains("it is a folder"));
        let relative = read(Path::new("missing.pem")).unwrap_err().to_string();
        assert!(relative.starts_with("missing.pem (/"), "{relative}");
    }

    #[test]
    fn what_is_no_file_is_named_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink(at("pipe"), at("to-pipe")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        std::os::unix::fs::symlink("/nowhere/key", at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, reason) in [
            (at("pipe"), "it is a named pipe, not a file"),
            (at("to-pipe"), "it is a named pipe, not a file"),
            (at("socket"), "it is a socket, not a file"),
            ("/dev/zero".into(), "it is a device, not a file"),
            (at("loop"), "it is a symbolic link that leads to itself"),
            (at("dangling"), "it is a symbolic link to /nowhere/key: No such file"),
            (at(&"x".repeat(300)), "its name is too long"),
        ] {
            let error = read(&path).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{error}");
        }
        assert_eq!(read(Path::new(EMPTY_DEVICE)).unwrap(), b"");
    }

    #[test]
    fn the_pipe_of_a_shell_is_read() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"key").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        assert_eq!(read(&path).unwrap(), b"key");
    }

    #[test]
    fn a_folder_in_which_others_may_replace_the_file_is_warned_of() {
        let (folder, path) = file(b"key", 0o600);
        for (mode, is_warned_of) in
            [(0o700, false), (0o755, false), (0o775, true), (0o777, true), (0o1777, false)]
        {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let warning = read_secret(&path).unwrap().warning.unwrap_or_default();
            assert_eq!(warning.contains("may replace"), is_warned_of, "{mode:o}: {warning}");
        }
    }

    #[test]
    fn a_file_of_another_user_may_be_read_through_its_group() {
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let (_folder, path) = file(b"key", 0o440);
        // Only root can give a file away.
        if is_root {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            assert!(!read_secret(&path).unwrap().warning.unwrap_or_default().contains("chmod 600"));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }
        assert!(read_secret(&path).unwrap().warning.is_some_and(|text| text.contains("chmod 600")));
    }

    #[test]
    fn a_file_that_others_may_change_is_refused_and_one_that_they_may_read_is_warned_of() {
        for mode in [0o620, 0o602, 0o666, 0o777] {
            let (_folder, path) = file(b"key", mode);
            let error = read_secret(&path).err().unwrap().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod go-w"), "{error}");
            assert!(read_trusted(&path).is_err());
        }
        for mode in [0o640, 0o604, 0o444, 0o440] {
            let (_folder, path) = file(b"key", mode);
            assert!(read_secret(&path).unwrap().warning.is_some_and(|text| text.contains("chmod 600")));
        }
        let (_folder, path) = file(b"key", 0o400);
        assert_eq!(read_secret(&path).unwrap().warning, None);
    }
}
