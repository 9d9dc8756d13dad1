//! Keeping a mailed token readable for its mail alone.
//!
//! A token must outlive a crash between the commit and the mail, but whoever reads the database, or a copy of it, must
//! not be able to follow the link. So it waits in the outbox encrypted under a key that is not in the database
//! (AES-256-GCM, NIST SP 800-38D, with a random 96-bit nonce), and is erased when the mail has been sent.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::{
    domain::{MailToken, SealedToken},
    entropy::Entropy,
};

const KEY_BYTES: usize = 32;

/// The first byte of a sealed token, so that a later release may seal in another way.
const VERSION: u8 = 1;

/// Binds the ciphertext to its use.
const CONTEXT: &[u8] = b"kairos-identity mailed token v1";

/// The key under which mailed tokens wait.
pub struct SealingKey {
    key: LessSafeKey,
}

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 random bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct InvalidSealingKey;

/// The token was sealed under another key, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token was sealed under another key (secret.key-file), or was changed")]
pub struct SealBroken;

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds no key.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected.
        source: InvalidSealingKey,
    },
}

impl SealingKey {
    /// Reads the base64 of 32 bytes; space around it is ignored.
    ///
    /// # Errors
    /// [`InvalidSealingKey`] for any other text, and for 32 times the same byte, which nobody drew by chance.
    pub fn from_base64(text: &str) -> Result<Self, InvalidSealingKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidSealingKey)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| InvalidSealingKey)?;
        let [first, ..] = bytes;
        if bytes.iter().all(|byte| *byte == first) {
            return Err(InvalidSealingKey);
        }
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealingKey)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Reads the key in `path`.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let in_file = |source| KeyFileError::Io { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(in_file)?;
        let mode = fs::metadata(path).map_err(in_file)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "The key file can be read by others: set its mode to 600");
        }
        Self::from_base64(&text).map_err(|source| KeyFileError::Invalid { path: path.to_owned(), source })
    }

    /// Reads the key in `path`, or makes one there, readable by its owner alone; processes that start together agree on
    /// one key.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn load_or_create(path: &Path, entropy: &Entropy) -> Result<Self, KeyFileError> {
        if !path.exists() {
            create(path, entropy).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
        }
        Self::load(path)
    }

    /// Encrypts a token for the outbox.
    ///
    /// # Panics
    /// Never: AES-GCM takes any 32 bytes.
    #[must_use]
    pub fn seal(&self, token: &MailToken, entropy: &Entropy) -> SealedToken {
        let nonce: [u8; NONCE_LEN] = entropy.bytes();
        let mut ciphertext = token.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(CONTEXT),
                &mut ciphertext,
            )
            .expect("a token is far below the limit of AES-GCM");
        SealedToken::from_bytes([&[VERSION][..], &nonce, &ciphertext].concat())
    }

    /// Decrypts a token, to mail it.
    ///
    /// # Errors
    /// [`SealBroken`] when it was not sealed under this key or was changed.
    pub fn open(&self, sealed: &SealedToken) -> Result<MailToken, SealBroken> {
        let (&VERSION, rest) = sealed.as_bytes().split_first().ok_or(SealBroken)? else {
            return Err(SealBroken);
        };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealBroken)?;
        let mut buffer = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let token = self.key.open_in_place(nonce, Aad::from(CONTEXT), &mut buffer).map_err(|_| SealBroken)?;
        let token: [u8; 32] = (&*token).try_into().map_err(|_| SealBroken)?;
        Ok(MailToken::from_random(token))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// Writes a new key beside `path` and gives it that name in one step, unless another process was faster.
fn create(path: &Path, entropy: &Entropy) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unique = u64::from_le_bytes(entropy.bytes());
    let draft = path.with_extension(format!("{unique:x}"));

    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", STANDARD.encode(entropy.bytes::<KEY_BYTES>()))?;
    file.sync_all()?;
    // Unlike a rename, a link never replaces a key that is there.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            tracing::info!(path = %path.display(), "Made a key under which mailed tokens wait for their mail");
            File::open(folder)?.sync_all()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        let mut bytes = [byte; KEY_BYTES];
        bytes[0] = !byte;
        SealingKey::from_base64(&STANDARD.encode(bytes)).unwrap()
    }

    fn token() -> MailToken {
        MailToken::from_random([5; 32])
    }

    #[test]
    fn a_sealed_token_opens_under_its_key_alone() {
        let sealed = key(1).seal(&token(), &Entropy::seeded(1));

        assert_eq!(key(1).open(&sealed).unwrap().as_bytes(), token().as_bytes());
        assert_eq!(key(2).open(&sealed).unwrap_err(), SealBroken);
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let sealed = key(1).seal(&token(), &Entropy::seeded(1));
        for place in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[place] ^= 1;
            assert_eq!(key(1).open(&SealedToken::from_bytes(bytes)).unwrap_err(), SealBroken, "byte {place}");
        }
        for length in 0..sealed.as_bytes().len() {
            let cut = SealedToken::from_bytes(sealed.as_bytes()[..length].to_vec());
            assert!(key(1).open(&cut).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_same_token_never_looks_the_same() {
        let entropy = Entropy::seeded(1);
        assert_ne!(key(1).seal(&token(), &entropy), key(1).seal(&token(), &entropy));
    }

    #[test]
    fn what_nobody_drew_by_chance_is_no_key() {
        for text in [String::new(), "hunter2".into(), STANDARD.encode([1; 31]), STANDARD.encode([0; 32])] {
            assert!(SealingKey::from_base64(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/secret.key");
        let sealed =
            SealingKey::load_or_create(&path, &Entropy::system()).unwrap().seal(&token(), &Entropy::system());

        let again = SealingKey::load_or_create(&path, &Entropy::system()).unwrap();

        assert!(again.open(&sealed).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_holds_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        fs::write(&path, "short").unwrap();
        let refusal = SealingKey::load_or_create(&path, &Entropy::system()).unwrap_err().to_string();
        assert!(refusal.contains("secret.key") && refusal.contains("openssl rand"), "{refusal}");
    }
}
