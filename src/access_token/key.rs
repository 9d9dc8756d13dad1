//! Keys that sign access tokens.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};

use crate::domain::{SigningSeed, Timestamp};

/// Names a key in the header of a token: the thumbprint of its public half (RFC 7638 and RFC 8037, appendix A.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a verifier needs of a key: the parts of a JSON Web Key (RFC 8037, section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// `kid`
    pub id: KeyId,
    /// `x`: the 32 bytes in base64url.
    pub x: String,
}

/// A key with the time in which it is of use.
#[derive(Clone)]
pub struct SigningKey {
    seed: SigningSeed,
    /// From when on it signs, until a later key does.
    pub signs_from: Timestamp,
    /// Until when what it signed is good; nothing as long as no later key is known.
    pub verifies_until: Option<Timestamp>,
}

impl SigningKey {
    /// The key that grows from this seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub const fn new(seed: SigningSeed, signs_from: Timestamp, verifies_until: Option<Timestamp>) -> Self {
        Self { seed, signs_from, verifies_until }
    }

    /// Its public half.
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
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
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).expect("every 32 bytes are a seed");
    pair.public_key().as_ref().to_vec()
}

fn public_key(bytes: &[u8]) -> PublicKey {
    let x = URL_SAFE_NO_PAD.encode(bytes);
    // The required members in lexicographic order, without space: RFC 7638, section 3.
    let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    PublicKey { id: KeyId(URL_SAFE_NO_PAD.encode(thumbprint)), x }
}

/// A key as jsonwebtoken takes it.
pub(super) struct PreparedKey {
    pub(super) public: PublicKey,
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    pub(super) signs_from: Timestamp,
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
            verifies_until: key.verifies_until,
        }
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.verifies_until.is_some_and(|until| until <= now)
    }

    pub(super) fn signs(&self, now: Timestamp) -> bool {
        self.signs_from <= now && !self.has_ended(now)
    }

    /// Whether it may have signed what is good `now`, by the latest time that any clock may show.
    pub(super) fn verifies(&self, latest: Timestamp, now: Timestamp) -> bool {
        self.signs_from <= latest && !self.has_ended(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.
    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let seed = SigningSeed::from_bytes(seed.try_into().unwrap());
        let start = Timestamp::from_unix_micros(0);
        let public = SigningKey::new(seed, start, None).public();
        assert_eq!(public.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public.id.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
