//! The keys of a process, which follow their file.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{
    file::{self, KeyFileError},
    key::{KEY_BYTES, KEY_ID_BYTES, KeyId, Purpose, SealingKey},
    ring::{self, InvalidKeyFile, KeyRing, UnsealError},
};
use crate::{domain::Sealed, entropy::Entropy, input_file::ShownPath};

/// The keys that encrypt secrets. They follow their file: a value under a key that this process does not have
/// makes it read the file again, if the file has changed.
pub struct SealingKeys {
    /// The file; `None` for keys that have none.
    path: Option<PathBuf>,
    ring: RwLock<Arc<KeyRing>>,
    /// The state in which the file was read last.
    read_state: Mutex<Option<FileState>>,
}

/// What shows that a file was changed or replaced: device, inode, length, and the time of the last change in
/// seconds and nanoseconds.
type FileState = (u64, u64, u64, i64, i64);

impl SealingKeys {
    /// Parses the text of a key file, for keys that have no file.
    ///
    /// # Errors
    /// [`InvalidKeyFile`]
    pub fn parse(text: &str) -> Result<Self, InvalidKeyFile> {
        KeyRing::parse(text).map(Self::without_file)
    }

    /// Generates a key that is not stored, for secrets that need not outlive the process.
    ///
    /// # Panics
    /// Never: any 32 bytes are a key of AES-256.
    #[must_use]
    pub fn ephemeral(entropy: &Entropy) -> Self {
        let key = SealingKey::from_bytes(entropy.bytes::<KEY_BYTES>());
        Self::without_file(KeyRing::of(key.expect("any 32 bytes are a key of AES-256")))
    }

    fn without_file(ring: KeyRing) -> Self {
        Self { path: None, ring: RwLock::new(Arc::new(ring)), read_state: Mutex::default() }
    }

    /// Reads the keys from the file `path`. Logs a warning if users other than its owner can read the file.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        // Determined before the file is read: a change meanwhile is noticed later.
        let read_state = Mutex::new(state_of(path));
        let (ring, warning) = file::load(path)?;
        if let Some(warning) = warning {
            tracing::warn!("Key file: {warning}");
        }
        Ok(Self { path: Some(path.to_owned()), ring: RwLock::new(Arc::new(ring)), read_state })
    }

    /// Reads the keys from the file `path`. If the file does not exist, creates it with a new key and mode
    /// 600. Processes that start at the same time use the same key.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load_or_create(path: &Path, entropy: &Entropy) -> Result<Self, KeyFileError> {
        if !path.exists() {
            file::create(path, entropy)?;
        }
        Self::load(path)
    }

    /// Returns the keys of this moment.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the key file; `None` for keys that have none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the file again, if there is one. If the file is invalid, the keys stay as they are.
    ///
    /// # Errors
    /// [`KeyFileError`], also if the key that this process encrypts with is no longer in the file.
    pub fn reload(&self) -> Result<(), KeyFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut read_state = self.read_state.lock().unwrap_or_else(PoisonError::into_inner);
        // Set before the file is read, so that an invalid file is not read again until it changes.
        *read_state = state_of(path);
        let (loaded, _) = file::load(path)?;
        let current = self.ring().current();
        if !loaded.ids().contains(&current) {
            return Err(KeyFileError::CurrentIsMissing { path: path.clone(), id: current });
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        drop(read_state);
        Ok(())
    }

    /// Reads the file again if it was changed since it was read last, for a value that no loaded key
    /// decrypts.
    fn reload_for_unknown_key(&self) {
        match self.reload_if_changed() {
            Ok(true) => tracing::info!(
                keys = self.ring().shown(),
                "Read the secret keys again: no loaded key decrypts a value"
            ),
            Ok(false) => {}
            Err(error) => tracing::error!(
                "Could not read the secret keys again; the previous ones stay in use: {error}"
            ),
        }
    }

    /// Reads the file again if it was changed since it was read last. Returns true if it was read.
    ///
    /// # Errors
    /// As [`SealingKeys::reload`].
    pub fn reload_if_changed(&self) -> Result<bool, KeyFileError> {
        let read_state = *self.read_state.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.path {
            Some(path) if state_of(path) != read_state => self.reload().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Encrypts 32 secret bytes under the current key.
    #[must_use]
    pub fn seal(&self, purpose: Purpose<'_>, secret: &[u8; 32], entropy: &Entropy) -> Sealed {
        self.ring().seal(purpose, secret, entropy)
    }

    /// Decrypts a secret that [`SealingKeys::seal`] encrypted for the same purpose and row, also one of an
    /// earlier release.
    ///
    /// # Errors
    /// [`UnsealError`], with the id of the key and the file if this process does not have the key.
    pub fn open(&self, purpose: Purpose<'_>, sealed: &Sealed) -> Result<[u8; 32], UnsealError> {
        let ring = self.ring();
        let mut opened = ring.open(purpose, sealed);
        if matches!(opened, Err(UnsealError::UnknownKey { .. } | UnsealError::NoKey)) {
            self.reload_for_unknown_key();
            // Another call may have read the file meanwhile.
            let current = self.ring();
            if !Arc::ptr_eq(&ring, &current) {
                opened = current.open(purpose, sealed);
            }
        }
        match (opened, &self.path) {
            (Err(UnsealError::UnknownKey { id, .. }), Some(path)) => {
                let place = format!(
                    "among those that this process has read from {}: {}",
                    ShownPath(path),
                    self.ring().shown()
                );
                Err(UnsealError::UnknownKey { id, place })
            }
            (opened, _) => opened,
        }
    }

    /// Returns the id of the key of a sealed value; `None` for a value of an earlier release, which names no
    /// key. `bytes` are the value, or at least its first [`SealingKeys::HEADER_BYTES`].
    #[must_use]
    pub fn key_of(bytes: &[u8]) -> Option<KeyId> {
        ring::key_id(bytes)
    }

    /// Length of what a sealed value begins with: the version and the id of the key.
    pub const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;

    /// Returns the HMAC-SHA-256 of a secret under a key that is derived from the current one, to compare
    /// secrets without storing them. Without the key, a fingerprint does not help to guess the secret.
    ///
    /// # Panics
    /// Never: an HMAC-SHA-256 has 32 bytes.
    #[must_use]
    pub fn fingerprint(&self, secret: &[u8]) -> [u8; 32] {
        self.ring().fingerprint(secret)
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKeys(..)")
    }
}

/// Returns the state of a file, which a symbolic link may name; `None` if it cannot be determined.
fn state_of(path: &Path) -> Option<FileState> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
}
