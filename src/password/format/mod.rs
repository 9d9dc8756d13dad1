//! Django's encoded passwords: `algorithm$…`.
//!
//! One file a family. Reading is separate from computing, so that a stored value is known to be affordable before any work
//! is done on it: every parameter has a cap, because a row may come from anywhere.
//!
//! Source: Django 5.2, `django.contrib.auth.hashers`. Passwords are hashed as their UTF-8 bytes.

mod argon2;
mod bcrypt;
mod md5;
mod pbkdf2;
mod scrypt;

pub(super) use self::bcrypt::{COST_MAX, COST_MIN, hash, nobodys_hash};
use self::{
    argon2::Argon2,
    bcrypt::Bcrypt,
    md5::Md5,
    pbkdf2::{Pbkdf2, Prf},
    scrypt::Scrypt,
};

/// The longest stored value that is read. Django's column has 128 characters, and no format here needs more.
const STORED_BYTES_MAX: usize = 512;

/// A stored hash that was read and may be computed.
pub(super) enum StoredHash {
    /// The format of new hashes: bcrypt over the SHA-256 of the password.
    BcryptSha256(Bcrypt),
    /// bcrypt over the password itself, of which it sees 72 bytes.
    Bcrypt(Bcrypt),
    Pbkdf2(Pbkdf2),
    Scrypt(Scrypt),
    Argon2(Argon2),
    Md5(Md5),
}

/// Why no password can be checked against a stored value; says nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// Django's mark for a user who has no password (`!…`), or nothing at all. Nothing is wrong with the row.
    #[error("no password is set")]
    Unusable,
    /// Not one of the schemes above; also a plaintext that an import left.
    #[error("its scheme is unknown")]
    UnknownScheme,
    /// A known scheme that does not continue as Django writes it.
    #[error("it is malformed")]
    Malformed,
    /// Checking it would take seconds or hundreds of megabytes.
    #[error("its parameters are beyond what is computed here")]
    TooExpensive,
}

impl StoredHash {
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.is_empty() || text.starts_with('!') {
            return Err(Unreadable::Unusable);
        }
        if text.len() > STORED_BYTES_MAX {
            return Err(Unreadable::Malformed);
        }

        let (scheme, rest) = text.split_once('$').ok_or(Unreadable::UnknownScheme)?;
        match scheme {
            bcrypt::SCHEME => Bcrypt::parse(rest).map(Self::BcryptSha256),
            "bcrypt" => Bcrypt::parse(rest).map(Self::Bcrypt),
            "pbkdf2_sha256" => Pbkdf2::parse(Prf::Sha256, rest).map(Self::Pbkdf2),
            "pbkdf2_sha1" => Pbkdf2::parse(Prf::Sha1, rest).map(Self::Pbkdf2),
            "scrypt" => Scrypt::parse(rest).map(Self::Scrypt),
            "argon2" => Argon2::parse(rest).map(Self::Argon2),
            "md5" => Md5::parse(rest).map(Self::Md5),
            _ => Err(Unreadable::UnknownScheme),
        }
    }

    /// The name that its text begins with.
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

    /// Computes the hash of `password` and compares in constant time.
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

    /// Whether a new hash of `cost` would protect its password better. A higher cost is left alone.
    pub(super) fn is_weaker_than(&self, cost: u32) -> bool {
        match self {
            Self::BcryptSha256(hash) => hash.cost() < cost,
            Self::Bcrypt(_) | Self::Pbkdf2(_) | Self::Scrypt(_) | Self::Argon2(_) | Self::Md5(_) => true,
        }
    }

    /// Does the work by which a hash of `cost` is dearer, so that a wrong password takes the same time for both.
    pub(super) fn spend_difference(&self, password: &str, cost: u32) {
        match self {
            Self::BcryptSha256(hash) | Self::Bcrypt(hash) => hash.spend_difference(password, cost),
            Self::Md5(_) => bcrypt::spend(password, cost),
            Self::Pbkdf2(_) | Self::Scrypt(_) | Self::Argon2(_) => {}
        }
    }
}

/// Reads a parameter: decimal digits without sign or leading zero, `1..=max`.
fn parameter(text: &str, max: u32) -> Result<u32, Unreadable> {
    if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unreadable::Malformed);
    }
    match text.parse() {
        Ok(value) if value <= max => Ok(value),
        // Also when the digits do not fit the type.
        Ok(_) | Err(_) => Err(Unreadable::TooExpensive),
    }
}

#[cfg(test)]
mod tests;
