//! Parses and verifies `pbkdf2_sha256$<iterations>$<salt>$<digest>` and `pbkdf2_sha1$...`. The bytes of the
//! salt's text are the salt; the digest is in standard base64.

use std::num::NonZeroU32;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::pbkdf2::{self, Algorithm, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256};

use super::{
    parse_error::{HashParseError, parameter},
    work::{Family, Work},
};

/// Five times the default of Django 5.2; takes half a second.
pub(super) const ITERATIONS_MAX: u32 = 5_000_000;

/// The pseudorandom function: HMAC with this hash function.
#[derive(Clone, Copy)]
pub(super) enum Prf {
    Sha1,
    Sha256,
}

pub(in crate::password) struct Pbkdf2 {
    prf: Prf,
    iterations: NonZeroU32,
    salt: String,
    digest: Vec<u8>,
}

impl Pbkdf2 {
    pub(super) fn parse(prf: Prf, text: &str) -> Result<Self, HashParseError> {
        let [iterations, salt, digest] =
            text.split('$').collect::<Vec<_>>().try_into().map_err(|_| HashParseError::Malformed)?;
        let digest = STANDARD.decode(digest).map_err(|_| HashParseError::Malformed)?;

        if salt.is_empty() || digest.len() != prf.digest_bytes() {
            return Err(HashParseError::Malformed);
        }
        // Checked last, so that only an otherwise valid hash is reported as too expensive.
        let iterations = parameter(iterations, ITERATIONS_MAX)?;
        let iterations = NonZeroU32::new(iterations).ok_or(HashParseError::Malformed)?;
        Ok(Self { prf, iterations, salt: salt.to_owned(), digest })
    }

    pub(super) const fn scheme(&self) -> &'static str {
        match self.prf {
            Prf::Sha1 => "pbkdf2_sha1",
            Prf::Sha256 => "pbkdf2_sha256",
        }
    }

    pub(super) fn work(&self) -> Work {
        let family = match self.prf {
            Prf::Sha1 => Family::Pbkdf2Sha1,
            Prf::Sha256 => Family::Pbkdf2Sha256,
        };
        Work { family, amount: u64::from(self.iterations.get()) }
    }

    /// True if `password` has this hash. The library compares in constant time.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let salt = self.salt.as_bytes();
        pbkdf2::verify(self.prf.algorithm(), self.iterations, salt, password, &self.digest).is_ok()
    }
}

impl Prf {
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Sha1 => PBKDF2_HMAC_SHA1,
            Self::Sha256 => PBKDF2_HMAC_SHA256,
        }
    }

    const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}
