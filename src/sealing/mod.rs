//! Encrypts secrets that are stored in the database, and page tokens that callers hold.
//!
//! The database must store a mailed token, so that it survives a crash between the commit and the delivery,
//! and the keys that sign access tokens, so that every instance has them. An attacker that reads the database
//! or a backup of it must be able neither to use a link nor to sign a token. Therefore these secrets are
//! encrypted under a key that is not in the database (AES-256-GCM, NIST SP 800-38D, with a random 96-bit
//! nonce).
//!
//! A key file holds one key or several: the first encrypts, all of them decrypt. An encrypted value names its
//! key, so keys can be replaced while instances run. It is bound to its row: it cannot be decrypted as the
//! value of another row. Start at [`SealingKeys`].

mod file;
mod key;
mod keys;
mod ring;

pub use self::{
    file::{KeyFile, KeyFileError},
    key::{InvalidSealingKey, KEY_ID_BYTES, KeyId, Purpose},
    keys::SealingKeys,
    ring::{InvalidKeyFile, KeyRing, UnsealError},
};

#[cfg(test)]
mod tests;
