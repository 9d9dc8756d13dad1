//! Parses and verifies Django's encoded passwords (`algorithm$...`), with one file per family of algorithms.
//!
//! A stored value is parsed before anything is computed. Each parameter has a cap, because an imported row
//! may contain any value; a value above a cap is rejected without work.
//!
//! Source: Django 5.2, `django.contrib.auth.hashers`. The input of a hash is the UTF-8 bytes of the password.

mod argon2;
mod bcrypt;
mod md5;
mod parse_error;
mod pbkdf2;
mod scrypt;
mod work;

use self::{
    argon2::Argon2,
    bcrypt::Bcrypt,
    md5::Md5,
    pbkdf2::{Pbkdf2, Prf},
    scrypt::Scrypt,
};
pub(super) use self::{
    bcrypt::{COST_MAX, COST_MIN, dummy_hash, hash},
    parse_error::HashParseError,
    work::{Family, Work},
};

/// The longest stored value that is parsed, in bytes. Django's column has 128 characters, and no supported
/// format needs more.
const STORED_BYTES_MAX: usize = 512;

/// A parsed hash whose parameters are within the caps.
pub(super) enum StoredHash {
    /// The format of new hashes: bcrypt of the SHA-256 of the password.
    BcryptSha256(Bcrypt),
    /// bcrypt of the first 72 bytes of the password.
    Bcrypt(Bcrypt),
    Pbkdf2(Pbkdf2),
    Scrypt(Scrypt),
    Argon2(Argon2),
    Md5(Md5),
}

impl StoredHash {
    /// Parses a stored value.
    ///
    /// # Errors
    /// [`HashParseError`]: why the value matches no password.
    pub(super) fn parse(text: &str) -> Result<Self, HashParseError> {
        if text.is_empty() || text.starts_with('!') {
            return Err(HashParseError::Unusable);
        }
        if text.len() > STORED_BYTES_MAX {
            return Err(HashParseError::Malformed);
        }

        let (scheme, rest) = text.split_once('$').ok_or(HashParseError::UnknownScheme)?;
        match scheme {
            bcrypt::SCHEME => Bcrypt::parse(rest).map(Self::BcryptSha256),
            "bcrypt" => Bcrypt::parse(rest).map(Self::Bcrypt),
            "pbkdf2_sha256" => Pbkdf2::parse(Prf::Sha256, rest).map(Self::Pbkdf2),
            "pbkdf2_sha1" => Pbkdf2::parse(Prf::Sha1, rest).map(Self::Pbkdf2),
            "scrypt" => Scrypt::parse(rest).map(Self::Scrypt),
            "argon2" => Argon2::parse(rest).map(Self::Argon2),
            "md5" => Md5::parse(rest).map(Self::Md5),
            _ => Err(HashParseError::UnknownScheme),
        }
    }

    /// Returns the name of the scheme, with which the stored text begins.
    pub(super) const fn scheme(&self) -> &'static str {
        match self {
            Self::BcryptSha256(_) => bcrypt::SCHEME,
            Self::Bcrypt(_) => "bcrypt",
            Self::Pbkdf2(hash) => hash.scheme(),
            Self::Scrypt(_) => "scrypt",
            Self::Argon2(_) => "argon2",
            Self::Md5(_) => "md5",
        }
    }

    /// Returns the work of a check with a wrong password, including that of
    /// [`StoredHash::compute_and_discard_difference`] for `cost`.
    pub(super) fn work(&self, cost: u32) -> Work {
        match self {
            Self::BcryptSha256(hash) | Self::Bcrypt(hash) => Work::of_bcrypt(hash.cost().max(cost)),
            Self::Md5(_) => Work::of_bcrypt(cost),
            Self::Pbkdf2(hash) => hash.work(),
            Self::Scrypt(hash) => Work { family: Family::Scrypt, amount: hash.work() },
            Self::Argon2(hash) => Work { family: Family::Argon2, amount: hash.work() },
        }
    }

    /// Computes the hash of `password` and compares it in constant time.
    pub(super) fn matches(&self, password: &str) -> bool {
        match self {
            Self::BcryptSha256(hash) => hash.matches(bcrypt::prehash(password).as_bytes()),
            Self::Bcrypt(hash) => hash.matches(password.as_bytes()),
            Self::Pbkdf2(hash) => hash.matches(password.as_bytes()),
            Self::Scrypt(hash) => hash.matches(password.as_bytes()),
            Self::Argon2(hash) => hash.matches(password.as_bytes()),
            Self::Md5(hash) => hash.matches(password.as_bytes()),
        }
    }

    /// True if the hash should be replaced by a new hash of `cost`: it has another scheme or a lower cost.
    pub(super) fn needs_rewrite(&self, cost: u32) -> bool {
        match self {
            Self::BcryptSha256(hash) => hash.cost() < cost,
            Self::Bcrypt(_) | Self::Pbkdf2(_) | Self::Scrypt(_) | Self::Argon2(_) | Self::Md5(_) => true,
        }
    }

    /// Does additional work for a hash that is cheaper than one of `cost`, so that a wrong password takes the
    /// same time for both. Does nothing for PBKDF2, scrypt and Argon2, whose time depends on their
    /// parameters.
    pub(super) fn compute_and_discard_difference(&self, password: &str, cost: u32) {
        match self {
            Self::BcryptSha256(hash) | Self::Bcrypt(hash) => {
                hash.compute_and_discard_difference(password, cost);
            }
            Self::Md5(_) => bcrypt::compute_and_discard(password, cost),
            Self::Pbkdf2(_) | Self::Scrypt(_) | Self::Argon2(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
