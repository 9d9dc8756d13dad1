//! Parses, verifies and creates `bcrypt_sha256$$2b$12$...` and `bcrypt$$2b$12$...`. The text after the first
//! `$` is bcrypt's own format of 60 characters.

use std::hint::black_box;

use ::bcrypt::{HashParts, hash_with_salt, verify};
use sha2::{Digest, Sha256};

use super::parse_error::HashParseError;
use crate::{
    domain::{PasswordHash, hex},
    entropy::Entropy,
};

/// The scheme of new hashes: Django's name for bcrypt of the hexadecimal SHA-256 of the password.
///
/// The digest has 64 ASCII characters, so bcrypt's limit of 72 bytes and its handling of NUL do not matter.
pub(super) const SCHEME: &str = "bcrypt_sha256";
/// The lowest cost that bcrypt defines.
pub(in crate::password) const COST_MIN: u32 = 4;
/// The highest cost that is computed: 1.9 s on the machine where cost 12 takes 235 ms.
pub(in crate::password) const COST_MAX: u32 = 15;

/// A bcrypt hash with a cost from [`COST_MIN`] to [`COST_MAX`].
pub(in crate::password) struct Bcrypt {
    encoded: String,
    cost: u32,
}

impl Bcrypt {
    /// Parses `$2b$12$...`. The versions `2a`, `2x` and `2y` are computed like `2b`.
    pub(super) fn parse(text: &str) -> Result<Self, HashParseError> {
        let cost = text.parse::<HashParts>().map_err(|_| HashParseError::Malformed)?.get_cost();
        match cost {
            ..COST_MIN => Err(HashParseError::Malformed),
            COST_MIN..=COST_MAX => Ok(Self { encoded: text.to_owned(), cost }),
            _ => Err(HashParseError::TooExpensive),
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// True if `input` has this hash. The library compares in constant time.
    ///
    /// Only the first 72 bytes of `input` are used. Django created plain `bcrypt$` hashes of longer passwords
    /// in this way while its bcrypt library truncated them (before version 5.0). The next login rewrites such
    /// a hash.
    pub(super) fn matches(&self, input: &[u8]) -> bool {
        verify(input, &self.encoded).unwrap_or(false)
    }

    /// Computes one hash of each cost from this hash's cost c to `cost` - 1. Together with the hash of cost c
    /// that was already computed, they take as long as one hash of `cost`, because each step doubles the
    /// time.
    pub(super) fn compute_and_discard_difference(&self, password: &str, cost: u32) {
        for step in self.cost..cost {
            let _ = black_box(hash_with_salt(prehash(password), step, [0; 16]));
        }
    }
}

/// Computes and discards a hash of `cost`.
pub(super) fn compute_and_discard(password: &str, cost: u32) {
    let _ = black_box(hash_with_salt(prehash(password), cost, [0; 16]));
}

/// Returns the SHA-256 of `password` as 64 lower-case hexadecimal digits.
pub(super) fn prehash(password: &str) -> String {
    hex(&Sha256::digest(password))
}

/// Hashes `password` in the current scheme. `cost` must be from [`COST_MIN`] to [`COST_MAX`].
pub(in crate::password) fn hash(password: &str, cost: u32, salt: [u8; 16]) -> PasswordHash {
    let parts = hash_with_salt(prehash(password), cost, salt).expect("the cost was checked at the start");
    PasswordHash::from_stored(format!("{SCHEME}${parts}"))
}

/// Creates the dummy hash: a hash of `cost` whose salt and digest are random bits, so that no known password
/// matches it.
///
/// The bits are those of a bcrypt of random bytes at the lowest cost, so that the start of the service does
/// not wait for a hash of `cost`.
pub(in crate::password) fn dummy_hash(cost: u32, entropy: &Entropy) -> PasswordHash {
    let secret: [u8; 32] = entropy.bytes();
    let parts = hash_with_salt(secret, COST_MIN, entropy.bytes()).expect("the lowest cost is valid");
    let cheap = parts.to_string();
    let (_, salt_and_digest) = cheap.rsplit_once('$').expect("the bcrypt format has a $ before the salt");
    PasswordHash::from_stored(format!("{SCHEME}$$2b${cost:02}${salt_and_digest}"))
}
