//! Keeping secrets in the database that the database must not tell, and in the hands of a reader who must not read them.
//!
//! A mailed token must outlive a crash between the commit and the mail, and a key that signs access tokens must be known to every
//! instance; but whoever reads the database, or a copy of it, must be able neither to follow the link nor to sign. So they lie there
//! encrypted under a key that is not in the database (AES-256-GCM, NIST SP 800-38D, with a random 96-bit nonce).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use crate::{domain::Sealed, entropy::Entropy};

const KEY_BYTES: usize = 32;

/// The first byte of what is sealed, so that a later release may seal in another way.
const VERSION: u8 = 1;

/// What a sealed secret is for; it opens for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A token that waits for its mail.
    MailToken,
    /// The seed of a key that signs access tokens.
    SigningSeed,
    /// A place in a list, carried by its reader.
    PageToken,
}

impl Purpose {
    /// Binds the ciphertext to it.
    const fn context(self) -> &'static [u8] {
        match self {
            Self::MailToken => b"kairos-identity mailed token v1",
            Self::SigningSeed => b"kairos-identity signing seed v1",
            Self::PageToken => b"kairos-identity page token v1",
        }
    }
}

/// The key under which secrets lie in the database.
pub struct SealingKey {
    key: LessSafeKey,
    fingerprint_key: hmac::Key,
}

/// Makes another key of the same bytes, which tells nothing of them.
const FINGERPRINT_CONTEXT: &[u8] = b"kairos-identity fingerprint v1";

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 random bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct InvalidSealingKey;

/// The secret was sealed under another key or for something else, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed under another key (secret.key-file), or was changed")]
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
        Self::from_bytes(bytes)
    }

    /// A key that is kept nowhere: for what need not outlive the process.
    ///
    /// # Panics
    /// Never: AES-256 takes any 32 bytes.
    #[must_use]
    pub fn passing(entropy: &Entropy) -> Self {
        Self::from_bytes(entropy.bytes()).expect("AES-256 takes any 32 bytes")
    }

    fn from_bytes(bytes: [u8; KEY_BYTES]) -> Result<Self, InvalidSealingKey> {
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealingKey)?;
        let fingerprint_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), FINGERPRINT_CONTEXT);
        let fingerprint_key = hmac::Key::new(hmac::HMAC_SHA256, fingerprint_key.as_ref());
        Ok(Self { key: LessSafeKey::new(key), fingerprint_key })
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

    /// Encrypts 32 secret bytes for the database.
    ///
    /// # Panics
    /// Never: AES-GCM takes any 32 bytes.
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

    /// Decrypts what [`SealingKey::seal`] encrypted for the same purpose.
    ///
    /// # Errors
    /// [`SealBroken`] when it was not sealed so under this key, or was changed.
    pub fn open(&self, purpose: Purpose, sealed: &Sealed) -> Result<[u8; 32], SealBroken> {
        let (&VERSION, rest) = sealed.as_bytes().split_first().ok_or(SealBroken)? else {
            return Err(SealBroken);
        };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealBroken)?;
        let mut buffer = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let context = Aad::from(purpose.context());
        let secret = self.key.open_in_place(nonce, context, &mut buffer).map_err(|_| SealBroken)?;
        (&*secret).try_into().map_err(|_| SealBroken)
    }
}

impl SealingKey {
    /// What tells two secrets apart, and helps nobody without the key to guess one (HMAC-SHA-256).
    ///
    /// # Panics
    /// Never: SHA-256 has 32 bytes.
    #[must_use]
    pub fn fingerprint(&self, secret: &[u8]) -> [u8; 32] {
        hmac::sign(&self.fingerprint_key, secret).as_ref().try_into().expect("SHA-256 has 32 bytes")
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
            tracing::info!(path = %path.display(), "Made a key under which secrets lie in the database");
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

    const SECRET: [u8; 32] = [5; 32];

    fn sealed(key: &SealingKey, entropy: &Entropy) -> Sealed {
        key.seal(Purpose::MailToken, &SECRET, entropy)
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_and_for_its_purpose_alone() {
        let sealed = sealed(&key(1), &Entropy::seeded(1));

        assert_eq!(key(1).open(Purpose::MailToken, &sealed), Ok(SECRET));
        assert_eq!(key(1).open(Purpose::SigningSeed, &sealed), Err(SealBroken));
        assert_eq!(key(2).open(Purpose::MailToken, &sealed), Err(SealBroken));
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let sealed = sealed(&key(1), &Entropy::seeded(1));
        let open = |bytes: Vec<u8>| key(1).open(Purpose::MailToken, &Sealed::from_bytes(bytes));
        for place in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[place] ^= 1;
            assert_eq!(open(bytes), Err(SealBroken), "byte {place}");
        }
        for length in 0..sealed.as_bytes().len() {
            assert!(open(sealed.as_bytes()[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let entropy = Entropy::seeded(1);
        assert_ne!(sealed(&key(1), &entropy), sealed(&key(1), &entropy));
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
            sealed(&SealingKey::load_or_create(&path, &Entropy::system()).unwrap(), &Entropy::system());

        let again = SealingKey::load_or_create(&path, &Entropy::system()).unwrap();

        assert!(again.open(Purpose::MailToken, &sealed).is_ok());
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
