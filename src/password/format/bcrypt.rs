//! `bcrypt_sha256$$2b$12$…` and `bcrypt$$2b$12$…`: what follows the first `$` is bcrypt's own text of 60 characters.

use std::hint::black_box;

use ::bcrypt::{HashParts, hash_with_salt, verify};
use sha2::{Digest, Sha256};

use super::Unreadable;
use crate::{
    domain::{PasswordHash, hex},
    entropy::Entropy,
};

/// The scheme of new hashes: Django's name for bcrypt over the hexadecimal SHA-256 of the password.
///
/// The digest has 64 ASCII characters, so bcrypt's limit of 72 bytes and the special place of NUL never matter.
pub(super) const SCHEME: &str = "bcrypt_sha256";
/// The least that bcrypt defines.
pub(in crate::password) const COST_MIN: u32 = 4;
/// 1.9 s on the machine where 12 takes 235 ms; a stored hash that asks for more is not computed.
pub(in crate::password) const COST_MAX: u32 = 15;

/// A bcrypt hash with an affordable cost.
pub(in crate::password) struct Bcrypt {
    encoded: String,
    cost: u32,
}

impl Bcrypt {
    /// Reads `$2b$12$…`; `2a`, `2x` and `2y` are computed alike.
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let cost = text.parse::<HashParts>().map_err(|_| Unreadable::Malformed)?.get_cost();
        match cost {
            ..COST_MIN => Err(Unreadable::Malformed),
            COST_MIN..=COST_MAX => Ok(Self { encoded: text.to_owned(), cost }),
            _ => Err(Unreadable::TooExpensive),
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// Compares in constant time (the library does).
    ///
    /// Of a longer `input`, 72 bytes are seen: that is how Django made plain `bcrypt$` hashes of long passwords while its
    /// bcrypt library still cut them (before 5.0), and the next login rewrites them.
    pub(super) fn matches(&self, input: &[u8]) -> bool {
        verify(input, &self.encoded).unwrap_or(false)
    }

    /// Costs c, c+1, … up to the one below `cost` take, with the c that was already spent, what `cost` itself takes.
    pub(super) fn spend_difference(&self, password: &str, cost: u32) {
        for step in self.cost..cost {
            let _ = black_box(hash_with_salt(prehash(password), step, [0; 16]));
        }
    }
}

/// Does the work of a whole hash of `cost`.
pub(super) fn spend(password: &str, cost: u32) {
    let _ = black_box(hash_with_salt(prehash(password), cost, [0; 16]));
}

/// The 64 lower-case hexadecimal digits of the SHA-256 of `password`.
pub(super) fn prehash(password: &str) -> String {
    hex(&Sha256::digest(password))
}

/// Hashes `password` in the current scheme; `cost` is within [`COST_MIN`] and [`COST_MAX`].
pub(in crate::password) fn hash(password: &str, cost: u32, salt: [u8; 16]) -> PasswordHash {
    let parts = hash_with_salt(prehash(password), cost, salt).expect("the cost was checked at the start");
    PasswordHash::from_stored(format!("{SCHEME}${parts}"))
}

/// A hash of `cost` that no password has: salt and digest are random bits.
///
/// They come out of the cheapest bcrypt of random bytes under the name of another cost, so the start does not wait for a
/// dear one, and nobody knows a text with that digest.
pub(in crate::password) fn nobodys_hash(cost: u32, entropy: &Entropy) -> PasswordHash {
    let secret: [u8; 32] = entropy.bytes();
    let parts = hash_with_salt(secret, COST_MIN, entropy.bytes()).expect("the least cost is a valid one");
    let cheap = parts.to_string();
    let (_, salt_and_digest) = cheap.rsplit_once('$').expect("bcrypt's text has its salt after a $");
    PasswordHash::from_stored(format!("{SCHEME}$$2b${cost:02}${salt_and_digest}"))
}
