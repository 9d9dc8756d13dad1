//! Encrypts secrets that are stored in the database, and page tokens that callers hold.
//!
//! The database must store a mailed token, so that it survives a crash between the commit and the delivery,
//! and the keys that sign access tokens, so that every instance has them. An attacker that reads the database
//! or a backup of it must be able neither to use a link nor to sign a token. Therefore these secrets are
//! encrypted under a key that is not in the database (AES-256-GCM, NIST SP 800-38D, with a random 96-bit
//! nonce).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use crate::{
    domain::Sealed,
    entropy::Entropy,
    input_file::{self, InputFileError},
    publish::{self, Existing},
};

const KEY_BYTES: usize = 32;

/// The first byte of a sealed secret: the version of the format.
const VERSION: u8 = 1;

/// The purpose of a sealed secret. It can be opened only for the purpose that it was sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A mailed token whose mail is not yet sent.
    MailToken,
    /// The seed of a key that signs access tokens.
    SigningSeed,
    /// A position in a list, held by the caller that reads the list.
    PageToken,
}

impl Purpose {
    /// Returns the associated data that binds a ciphertext to the purpose.
    const fn context(self) -> &'static [u8] {
        match self {
            Self::MailToken => b"kairos-identity mailed token v1",
            Self::SigningSeed => b"kairos-identity signing seed v1",
            Self::PageToken => b"kairos-identity page token v1",
        }
    }
}

/// The key that encrypts secrets.
pub struct SealingKey {
    key: LessSafeKey,
    fingerprint_key: hmac::Key,
}

/// Derives the fingerprint key from the bytes of the sealing key. The derived key does not reveal those
/// bytes.
const FINGERPRINT_CONTEXT: &[u8] = b"kairos-identity fingerprint v1";

/// The text is not a valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {KEY_BYTES} random bytes in base64, as `openssl rand -base64 {KEY_BYTES}` prints them")]
pub struct InvalidSealingKey;

/// The secret cannot be decrypted: it was sealed under another key or for another purpose, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret was encrypted under another key (secret.key-file) or was changed")]
pub struct UnsealError;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, or other users may change it.
    #[error(transparent)]
    Unusable(#[from] InputFileError),
    /// The file cannot be created.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file does not contain a valid key.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The expected content.
        source: InvalidSealingKey,
    },
}

impl SealingKey {
    /// Parses `KEY_BYTES` bytes in base64. Whitespace around the text is ignored.
    ///
    /// # Errors
    /// [`InvalidSealingKey`] for any other text, and for equal bytes, which are not random.
    pub fn from_base64(text: &str) -> Result<Self, InvalidSealingKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidSealingKey)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| InvalidSealingKey)?;
        let [first, ..] = bytes;
        if bytes.iter().all(|byte| *byte == first) {
            return Err(InvalidSealingKey);
        }
        Self::from_bytes(bytes)
    }

    /// Generates a key that is not stored, for secrets that need not outlive the process.
    ///
    /// # Panics
    /// Never: any 32 bytes are a key of AES-256.
    #[must_use]
    pub fn ephemeral(entropy: &Entropy) -> Self {
        Self::from_bytes(entropy.bytes()).expect("any 32 bytes are a key of AES-256")
    }

    fn from_bytes(bytes: [u8; KEY_BYTES]) -> Result<Self, InvalidSealingKey> {
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealingKey)?;
        let fingerprint_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), FINGERPRINT_CONTEXT);
        let fingerprint_key = hmac::Key::new(hmac::HMAC_SHA256, fingerprint_key.as_ref());
        Ok(Self { key: LessSafeKey::new(key), fingerprint_key })
    }

    /// Reads the key from the file `path`. Logs a warning if users other than its owner can read the file.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let file = input_file::read_secret(path)?;
        if let Some(warning) = file.warning {
            tracing::warn!("Key file: {warning}");
        }
        Self::from_base64(&file.text)
            .map_err(|source| KeyFileError::Invalid { path: path.to_owned(), source })
    }

    /// Reads the key from the file `path`. If the file does not exist, creates it with a new key and mode
    /// 600. Processes that start at the same time use the same key.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load_or_create(path: &Path, entropy: &Entropy) -> Result<Self, KeyFileError> {
        if !path.exists() {
            create(path, entropy).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
        }
        Self::load(path)
    }

    /// Encrypts 32 secret bytes.
    ///
    /// # Panics
    /// Never: AES-GCM encrypts any 32 bytes.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, secret: &[u8; 32], entropy: &Entropy) -> Sealed {
        let nonce: [u8; NONCE_LEN] = entropy.bytes();
        let mut ciphertext = secret.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::from(purpose.context()), &mut ciphertext)
            .expect("32 bytes are far below the limit of AES-GCM");
        Sealed::from_bytes([&[VERSION][..], &nonce, &ciphertext].concat())
    }

    /// Decrypts a secret that [`SealingKey::seal`] encrypted for the same purpose.
    ///
    /// # Errors
    /// [`UnsealError`] if the secret was sealed under another key or for another purpose, or was changed.
    pub fn open(&self, purpose: Purpose, sealed: &Sealed) -> Result<[u8; 32], UnsealError> {
        let (&VERSION, rest) = sealed.as_bytes().split_first().ok_or(UnsealError)? else {
            return Err(UnsealError);
        };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(UnsealError)?;
        let mut buffer = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let context = Aad::from(purpose.context());
        let secret = self.key.open_in_place(nonce, context, &mut buffer).map_err(|_| UnsealError)?;
        (&*secret).try_into().map_err(|_| UnsealError)
    }
}

impl SealingKey {
    /// Returns the HMAC-SHA-256 of a secret under a derived key, to compare secrets without storing them.
    /// Without the key, a fingerprint does not help to guess the secret.
    ///
    /// # Panics
    /// Never: an HMAC-SHA-256 has 32 bytes.
    #[must_use]
    pub fn fingerprint(&self, secret: &[u8]) -> [u8; 32] {
        hmac::sign(&self.fingerprint_key, secret).as_ref().try_into().expect("an HMAC-SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// Publishes a new key as `path`, unless another process has created `path`.
fn create(path: &Path, entropy: &Entropy) -> io::Result<()> {
    let folder = publish::folder_of(path);
    fs::create_dir_all(folder)?;
    publish::remove_leftovers(folder);
    let text = format!("{}\n", STANDARD.encode(entropy.bytes::<KEY_BYTES>()));
    match publish::publish(path, text.as_bytes(), Existing::Keep) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            tracing::info!(path = %path.display(), "Created the encryption key for secrets stored in the database");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(byte: u8) -> SealingKey {
        let mut bytes = [byte; KEY_BYTES];
        bytes[0] = !byte;
        SealingKey::from_base64(&STANDARD.encode(bytes)).unwrap()
    }

    const SECRET: [u8; 32] = [5; 32];

    fn sealed(key: &SealingKey, entropy: &Entropy) -> Sealed {
        key.seal(Purpose::MailToken, &SECRET, entropy)
    }

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_for_its_purpose() {
        let sealed = sealed(&key(1), &Entropy::seeded(1));

        assert_eq!(key(1).open(Purpose::MailToken, &sealed), Ok(SECRET));
        assert_eq!(key(1).open(Purpose::SigningSeed, &sealed), Err(UnsealError));
        assert_eq!(key(2).open(Purpose::MailToken, &sealed), Err(UnsealError));
    }

    #[test]
    fn a_changed_byte_or_a_truncation_is_detected() {
        let sealed = sealed(&key(1), &Entropy::seeded(1));
        let open = |bytes: Vec<u8>| key(1).open(Purpose::MailToken, &Sealed::from_bytes(bytes));
        for index in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[index] ^= 1;
            assert_eq!(open(bytes), Err(UnsealError), "byte {index}");
        }
        for length in 0..sealed.as_bytes().len() {
            assert!(open(sealed.as_bytes()[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn sealing_a_secret_twice_yields_different_bytes() {
        let entropy = Entropy::seeded(1);
        assert_ne!(sealed(&key(1), &entropy), sealed(&key(1), &entropy));
    }

    #[test]
    fn a_text_that_is_not_32_random_bytes_is_not_a_key() {
        for text in [String::new(), "hunter2".into(), STANDARD.encode([1; 31]), STANDARD.encode([0; 32])] {
            assert!(SealingKey::from_base64(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_key_file_is_created_once_with_mode_600() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/secret.key");
        let sealed =
            sealed(&SealingKey::load_or_create(&path, &Entropy::system()).unwrap(), &Entropy::system());

        let again = SealingKey::load_or_create(&path, &Entropy::system()).unwrap();

        assert!(again.open(Purpose::MailToken, &sealed).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_error_names_an_invalid_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        fs::write(&path, "short").unwrap();
        let error = SealingKey::load_or_create(&path, &Entropy::system()).unwrap_err().to_string();
        assert!(error.contains("secret.key") && error.contains("openssl rand"), "{error}");
    }
}
