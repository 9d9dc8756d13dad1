//! The key file: reads, creates and changes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    key::{KeyId, SealingKey},
    ring::{InvalidKeyFile, KeyRing, key_lines},
};
use crate::{
    domain::io_reason,
    entropy::Entropy,
    input_file::{self, InputFileError, ShownPath},
    publish::{self, Existing, LockedFile, NewFolders},
};

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, or other users may change it.
    #[error("{}{}", .0, way_out(.0))]
    Unusable(#[from] InputFileError),
    /// The file cannot be written.
    #[error("{}: {}", ShownPath(path), io_reason(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file does not contain valid keys.
    #[error("{}: {source}", ShownPath(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the expected content.
        source: InvalidKeyFile,
    },
    /// The file has no key with this id.
    #[error("{} has no key {id}, only {known}", ShownPath(path))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The id.
        id: KeyId,
        /// The ids of the keys in the file.
        known: String,
    },
    /// The key is the current one.
    #[error(
        "the key {id} encrypts new secrets (it is the first in {}): make another key the first one before",
        ShownPath(path)
    )]
    Current {
        /// The file.
        path: PathBuf,
        /// The id.
        id: KeyId,
    },
    /// The file no longer has the key with which this process has encrypted.
    #[error(
        "{} no longer has the key {id}, under which this process has encrypted secrets: add it again, as the second \
         key, until `kairos-identity keys secret reseal` says that nothing is encrypted under it; if it is lost, restart the service",
        ShownPath(path)
    )]
    CurrentIsMissing {
        /// The file.
        path: PathBuf,
        /// The id of the key.
        id: KeyId,
    },
}

/// Returns what to do about a file with the bytes of a key.
const fn way_out(error: &InputFileError) -> &'static str {
    if error.is_not_text() {
        ": a key is written in base64, such as by `openssl rand -base64 32`"
    } else {
        ""
    }
}

/// Reads the keys of the file `path`. Returns them with a warning, if there is one.
pub(super) fn load(path: &Path) -> Result<(KeyRing, Option<String>), KeyFileError> {
    let file = input_file::read_secret(path)?;
    let ring = KeyRing::parse(&file.text)
        .map_err(|source| KeyFileError::Invalid { path: path.to_owned(), source })?;
    Ok((ring, file.warning))
}

/// Publishes a new key as `path`, unless another process has created `path`.
pub(super) fn create(path: &Path, entropy: &Entropy) -> Result<(), KeyFileError> {
    let publish_new_key = || {
        let folder = publish::folder_of(path);
        let _new_folders = NewFolders::create(folder)?;
        publish::remove_leftovers(folder);
        let text = format!("{}\n", SealingKey::generate(entropy));
        publish::publish(path, text.as_bytes(), Existing::Keep)
    };
    match publish_new_key() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(KeyFileError::Io { path: path.to_owned(), source }),
        Ok(()) => {
            tracing::info!(path = %path.display(), "Created the encryption key for secrets stored in the database");
            Ok(())
        }
    }
}

/// A function that returns the index of the line of a key; `None` if the file does not have the key.
type IndexOf<'a> = dyn Fn(KeyId) -> Option<usize> + 'a;

/// A key file that a command changes. A change replaces the file as a whole; it keeps its owner, its mode and
/// its comments.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Names the file `path`. A file behind a symbolic link is changed, not the link.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the keys of the file.
    ///
    /// # Errors
    /// [`KeyFileError`]
    pub fn ring(&self) -> Result<KeyRing, KeyFileError> {
        load(&self.path).map(|(ring, _)| ring)
    }

    /// Adds a new key after the first one, where it only decrypts. Returns its id.
    ///
    /// # Errors
    /// [`KeyFileError`]
    pub fn add(&self, entropy: &Entropy) -> Result<KeyId, KeyFileError> {
        let text = SealingKey::generate(entropy);
        self.change(|lines, ring, index_of| {
            let after = index_of(ring.current()).map_or(0, |index| index + 1);
            lines.insert(after, text.clone());
            Ok(())
        })?;
        // Cannot fail: `change` has parsed the new text of the file, which contains this key.
        let added = SealingKey::from_base64(&text).map(|key| key.id());
        added.map_err(|_| self.invalid(InvalidKeyFile::Empty))
    }

    /// Makes a key the first one: it encrypts from now on.
    ///
    /// # Errors
    /// [`KeyFileError`], for example if the file has no such key.
    pub fn make_first(&self, id: KeyId) -> Result<(), KeyFileError> {
        self.change(|lines, ring, index_of| {
            let from = index_of(id).ok_or_else(|| self.unknown(id, ring))?;
            let to = index_of(ring.current()).unwrap_or_default();
            let line = lines.remove(from);
            lines.insert(to, line);
            Ok(())
        })
    }

    /// Removes a key that is not the first one.
    ///
    /// # Errors
    /// [`KeyFileError`], for example if the file has no such key.
    pub fn remove(&self, id: KeyId) -> Result<(), KeyFileError> {
        self.change(|lines, ring, index_of| {
            if ring.current() == id {
                return Err(KeyFileError::Current { path: self.path.clone(), id });
            }
            lines.remove(index_of(id).ok_or_else(|| self.unknown(id, ring))?);
            Ok(())
        })
    }

    /// Changes the lines of the file under a lock, so that two changes at the same time lose nothing.
    fn change(
        &self,
        change: impl Fn(&mut Vec<String>, &KeyRing, &IndexOf<'_>) -> Result<(), KeyFileError>,
    ) -> Result<(), KeyFileError> {
        let mut file = LockedFile::lock(&self.path).map_err(|source| self.failed(source))?;
        let text = input_file::read_secret(&self.path)?.text;
        let ring = KeyRing::parse(&text).map_err(|source| self.invalid(source))?;
        let index_of = |id: KeyId| {
            key_lines(&text)
                .find_map(|(index, key)| (SealingKey::from_base64(key).ok()?.id() == id).then_some(index))
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines, &ring, &index_of)?;
        let changed = lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
        KeyRing::parse(&changed).map_err(|source| self.invalid(source))?;
        file.replace(changed.as_bytes()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.path.clone(), source }
    }

    fn invalid(&self, source: InvalidKeyFile) -> KeyFileError {
        KeyFileError::Invalid { path: self.path.clone(), source }
    }

    fn unknown(&self, id: KeyId, ring: &KeyRing) -> KeyFileError {
        KeyFileError::Unknown { path: self.path.clone(), id, known: ring.shown() }
    }
}
