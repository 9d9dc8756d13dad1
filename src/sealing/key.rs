//! One key: its id, and the encryption under it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use crate::{domain::hex, entropy::Entropy};

pub(super) const KEY_BYTES: usize = 32;

/// Length of the id of a key.
pub const KEY_ID_BYTES: usize = 8;

/// The context of the HMAC that derives the fingerprint key from the bytes of the sealing key. The derived
/// key does not reveal those bytes.
const FINGERPRINT_CONTEXT: &[u8] = b"kairos-identity fingerprint v1";

/// The context of the HMAC that derives the id of a key from its bytes. The id does not reveal those bytes.
const ID_CONTEXT: &[u8] = b"kairos-identity key id v1";

/// The purpose of a sealed secret, and the row that holds it. The secret can be opened only for the purpose
/// and the row that it was sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A mailed token whose mail is not yet sent. Its row is found by its Message-ID, which is unique and,
    /// unlike the id, known before the row is inserted. The token is bound to its recipient too: a writer to
    /// the database cannot have the link mailed to another address.
    MailToken {
        /// The Message-ID of the mail.
        message_id: &'a str,
        /// The address that the mail is sent to.
        recipient: &'a str,
    },
    /// The seed of a key that signs access tokens.
    SigningSeed {
        /// The id of the signing key, which is the primary key of its row.
        key_id: &'a str,
    },
    /// A position in a list, held by the caller that reads the list.
    PageToken,
}

impl Purpose<'_> {
    /// Returns the associated data of a value of an earlier release, which names no key. Such a value is
    /// bound to its purpose, but not to its row.
    pub(super) const fn context_without_row(self) -> &'static [u8] {
        match self {
            Self::MailToken { .. } => b"kairos-identity mailed token v1",
            Self::SigningSeed { .. } => b"kairos-identity signing seed v1",
            Self::PageToken => b"kairos-identity page token v1",
        }
    }

    /// Returns the associated data that binds a ciphertext to its purpose and to the table, the column and
    /// the key of its row. The length of each part precedes it, so that no two lists of parts have the same
    /// bytes.
    pub(super) fn context(self) -> Vec<u8> {
        let parts: &[&str] = match self {
            Self::MailToken { message_id, recipient } => {
                &["core_mail_outbox", "sealed_token", message_id, recipient]
            }
            Self::SigningSeed { key_id } => &["core_signing_key", "sealed_seed", key_id],
            Self::PageToken => &["page token"],
        };
        let mut context = b"kairos-identity sealed v2".to_vec();
        for part in parts {
            context.extend_from_slice(&(part.len() as u64).to_be_bytes());
            context.extend_from_slice(part.as_bytes());
        }
        context
    }
}

/// The id of a key: it names the key in sealed values and messages, and does not reveal it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for KeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = u64::from_str_radix(text, 16).ok();
        let is_whole = text.len() == 2 * KEY_ID_BYTES && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = number.filter(|_| is_whole);
        number
            .map(|number| Self(number.to_be_bytes()))
            .ok_or("expected the 16 hexadecimal digits that `kairos-identity keys secret list` prints")
    }
}

/// The text is not a valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {KEY_BYTES} random bytes in base64, as `openssl rand -base64 {KEY_BYTES}` prints them")]
pub struct InvalidSealingKey;

/// A key that encrypts secrets.
pub(super) struct SealingKey {
    id: KeyId,
    key: LessSafeKey,
    fingerprint_key: hmac::Key,
}

impl SealingKey {
    /// Parses `KEY_BYTES` bytes in base64. Whitespace around the text is ignored.
    pub(super) fn from_base64(text: &str) -> Result<Self, InvalidSealingKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidSealingKey)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| InvalidSealingKey)?;
        let [first, ..] = bytes;
        // Equal bytes are not random.
        if bytes.iter().all(|byte| *byte == first) {
            return Err(InvalidSealingKey);
        }
        Self::from_bytes(bytes)
    }

    pub(super) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Result<Self, InvalidSealingKey> {
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealingKey)?;
        let own = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        // The id is the first `KEY_ID_BYTES` of the HMAC.
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(hmac::sign(&own, ID_CONTEXT).as_ref()).for_each(|(to, from)| *to = *from);
        let fingerprint_key = hmac::sign(&own, FINGERPRINT_CONTEXT);
        let fingerprint_key = hmac::Key::new(hmac::HMAC_SHA256, fingerprint_key.as_ref());
        Ok(Self { id: KeyId(id), key: LessSafeKey::new(key), fingerprint_key })
    }

    /// Returns the text of a new key.
    pub(super) fn generate(entropy: &Entropy) -> String {
        STANDARD.encode(entropy.bytes::<KEY_BYTES>())
    }

    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts 32 secret bytes. Returns the nonce and the ciphertext.
    pub(super) fn seal(&self, context: &[u8], secret: &[u8; 32], entropy: &Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = entropy.bytes();
        let mut ciphertext = secret.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::from(context), &mut ciphertext)
            .expect("32 bytes are far below the limit of AES-GCM");
        [&nonce[..], &ciphertext].concat()
    }

    /// Decrypts what [`SealingKey::seal`] returned for the same context; `None` for anything else.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<[u8; 32]> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self.key.open_in_place(nonce, Aad::from(context), &mut buffer).ok()?;
        (&*secret).try_into().ok()
    }

    /// Returns the HMAC-SHA-256 of a secret under a derived key.
    pub(super) fn fingerprint(&self, secret: &[u8]) -> [u8; 32] {
        hmac::sign(&self.fingerprint_key, secret).as_ref().try_into().expect("an HMAC-SHA-256 has 32 bytes")
    }
}
