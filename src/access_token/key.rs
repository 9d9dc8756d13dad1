//! The keys that sign access tokens.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};

use crate::domain::{SigningSeed, Timestamp};

/// The ID of a key, `kid` in the header of a token: the thumbprint of the public key (RFC 7638 and RFC 8037,
/// appendix A.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// Returns the ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The members of a public JSON Web Key that differ between keys (RFC 8037, section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// `kid`: the ID of the key.
    pub id: KeyId,
    /// `x`: the 32 bytes of the public key in base64url.
    pub x: String,
}

/// A signing key with its period of use.
#[derive(Clone)]
pub struct SigningKey {
    seed: SigningSeed,
    /// The time from which the key signs, until a later key starts to sign.
    pub signs_from: Timestamp,
    /// The time until which its signatures are accepted; `None` as long as it has no successor.
    pub verifies_until: Option<Timestamp>,
}

impl SigningKey {
    /// Creates the key that is derived from this seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub const fn new(seed: SigningSeed, signs_from: Timestamp, verifies_until: Option<Timestamp>) -> Self {
        Self { seed, signs_from, verifies_until }
    }

    /// Returns the public key.
    ///
    /// # Panics
    /// Never: any 32 bytes are a valid seed.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        public_key(&public_bytes(&self.seed))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id.0)
    }
}

fn public_bytes(seed: &SigningSeed) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).expect("any 32 bytes are a valid seed");
    pair.public_key().as_ref().to_vec()
}

fn public_key(bytes: &[u8]) -> PublicKey {
    let x = URL_SAFE_NO_PAD.encode(bytes);
    // RFC 7638, section 3: the required members in lexicographic order, without whitespace.
    let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    PublicKey { id: KeyId(URL_SAFE_NO_PAD.encode(thumbprint)), x }
}

/// A key in the form that jsonwebtoken requires.
pub(super) struct PreparedKey {
    pub(super) public: PublicKey,
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    /// The time from which the key signs; for the earliest key, the beginning of time.
    pub(super) signs_from: Timestamp,
    /// The time from which the key was to sign when it was created.
    pub(super) planned_from: Timestamp,
    pub(super) verifies_until: Option<Timestamp>,
}

impl PreparedKey {
    pub(super) fn new(key: &SigningKey) -> Self {
        let bytes = public_bytes(&key.seed);
        Self {
            public: public_key(&bytes),
            encoding: EncodingKey::from_ed_der(key.seed.as_bytes()),
            decoding: DecodingKey::from_ed_der(&bytes),
            signs_from: key.signs_from,
            planned_from: key.signs_from,
            verifies_until: key.verifies_until,
        }
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.verifies_until.is_some_and(|until| until <= now)
    }

    /// True if the key may sign at `now`.
    pub(super) fn signs(&self, now: Timestamp) -> bool {
        self.signs_from <= now && !self.has_expired(now)
    }

    /// True if the key verifies tokens at `now`. `latest_clock` is the latest time that the clock of an
    /// instance may show: the key may already sign at that instance.
    pub(super) fn verifies(&self, latest_clock: Timestamp, now: Timestamp) -> bool {
        self.signs_from <= latest_clock && !self.has_expired(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the thumbprint are those of RFC 8037, appendix A.
    #[test]
    fn the_key_id_is_the_thumbprint_of_the_public_key() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let seed = SigningSeed::from_bytes(seed.try_into().unwrap());
        let start = Timestamp::from_unix_micros(0);
        let public = SigningKey::new(seed, start, None).public();
        assert_eq!(public.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public.id.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
