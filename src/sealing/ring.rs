//! The keys of one file: the first encrypts, all of them decrypt.

use super::key::{InvalidSealingKey, KEY_ID_BYTES, KeyId, Purpose, SealingKey};
use crate::{domain::Sealed, entropy::Entropy};

/// The first byte of a sealed secret: the version of the format. The id of the key, the nonce and the
/// ciphertext follow. The secret is bound to its row.
const VERSION: u8 = 2;

/// The version of an earlier release: the nonce and the ciphertext follow at once, and no id of the key. The
/// secret is bound to its purpose only.
const VERSION_WITHOUT_KEY_ID: u8 = 1;

/// The most keys of a file. A key is needed while stored values and backups are encrypted under it; more than
/// a few are a mistake.
const KEYS_MAX: usize = 16;

/// Begins a comment in a key file.
const COMMENT: char = '#';

/// The text is not that of a key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyFile {
    /// There is no key.
    #[error("it contains no key: {InvalidSealingKey}")]
    Empty,
    /// A line is no key.
    #[error("line {line}: {InvalidSealingKey}; each line holds one key")]
    Line {
        /// The number of the line, from 1.
        line: usize,
    },
    /// The file contains a key twice.
    #[error("line {line} repeats the key {id}: delete the line")]
    Repeated {
        /// The number of the line, from 1.
        line: usize,
        /// The key.
        id: KeyId,
    },
    /// There are too many keys.
    #[error(
        "it contains more than {KEYS_MAX} keys: delete those under which nothing is encrypted \
         (`kairos-identity keys secret list`, `... remove`)"
    )]
    TooMany,
}

/// Why a secret cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// The key is not among those of this process.
    #[error("the secret was encrypted under another key (secret.key-file): its key {id} is not {place}")]
    UnknownKey {
        /// The id of the key.
        id: KeyId,
        /// Where the key was searched, with the keys that are there.
        place: String,
    },
    /// No key decrypts a value that names none.
    #[error("the secret was encrypted under another key (secret.key-file) or was changed")]
    NoKey,
    /// The value was changed, or was sealed for another row or purpose.
    #[error("the secret was changed, or belongs to another row")]
    Changed,
}

/// The keys of one file.
pub struct KeyRing {
    /// Encrypts.
    current: SealingKey,
    /// Only decrypt.
    others: Vec<SealingKey>,
}

impl KeyRing {
    /// Parses the text of a key file: one key per line. Text after `#` and empty lines are ignored.
    ///
    /// # Errors
    /// [`InvalidKeyFile`]
    pub fn parse(text: &str) -> Result<Self, InvalidKeyFile> {
        let mut keys: Vec<SealingKey> = Vec::new();
        for (line, text) in key_lines(text) {
            let line = line + 1;
            let key = SealingKey::from_base64(text).map_err(|_| InvalidKeyFile::Line { line })?;
            if keys.iter().any(|known| known.id() == key.id()) {
                return Err(InvalidKeyFile::Repeated { line, id: key.id() });
            }
            if keys.len() == KEYS_MAX {
                return Err(InvalidKeyFile::TooMany);
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or(InvalidKeyFile::Empty)?;
        Ok(Self { current, others: keys.collect() })
    }

    pub(super) const fn of(current: SealingKey) -> Self {
        Self { current, others: Vec::new() }
    }

    /// Returns the id of the key that encrypts.
    #[must_use]
    pub const fn current(&self) -> KeyId {
        self.current.id()
    }

    /// Returns the ids of all keys, in the order of the file.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys().map(SealingKey::id).collect()
    }

    /// Returns the ids of all keys in one line.
    #[must_use]
    pub fn shown(&self) -> String {
        self.ids().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn keys(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.current).chain(&self.others)
    }

    pub(super) fn seal(&self, purpose: Purpose<'_>, secret: &[u8; 32], entropy: &Entropy) -> Sealed {
        let KeyId(id) = self.current.id();
        let sealed = self.current.seal(&purpose.context(), secret, entropy);
        Sealed::from_bytes([&[VERSION][..], &id, &sealed].concat())
    }

    pub(super) fn open(&self, purpose: Purpose<'_>, sealed: &Sealed) -> Result<[u8; 32], UnsealError> {
        let bytes = sealed.as_bytes();
        if let Some(id) = key_id(bytes) {
            let rest = bytes.get(1 + KEY_ID_BYTES..).unwrap_or_default();
            let key = self.keys().find(|key| key.id() == id).ok_or_else(|| UnsealError::UnknownKey {
                id,
                place: format!("among the keys {}", self.shown()),
            })?;
            return key.open(&purpose.context(), rest).ok_or(UnsealError::Changed);
        }
        let Some((&VERSION_WITHOUT_KEY_ID, rest)) = bytes.split_first() else {
            return Err(UnsealError::Changed);
        };
        let context = purpose.context_without_row();
        self.keys().find_map(|key| key.open(context, rest)).ok_or(UnsealError::NoKey)
    }

    pub(super) fn fingerprint(&self, secret: &[u8]) -> [u8; 32] {
        self.current.fingerprint(secret)
    }
}

/// Returns the id of the key of a sealed value that begins with `bytes`; `None` if the value names no key.
pub(super) fn key_id(bytes: &[u8]) -> Option<KeyId> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    rest.first_chunk().copied().map(KeyId)
}

/// Returns the lines of a key file that hold a key, with their indices.
pub(super) fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(|line| line.split(COMMENT).next().unwrap_or_default().trim());
    lines.enumerate().filter(|(_, key)| !key.is_empty())
}
