//! Files with secrets or rights, which the service refuses if other users may change them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// Writes a file that only its owner can access, whatever the umask of the test run is. A file that exists
/// keeps its inode, as an editor's file does.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
