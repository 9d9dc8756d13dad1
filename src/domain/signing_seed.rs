//! The secret half of a key that signs.

use std::fmt;

/// 32 random bytes that an Ed25519 key pair grows from (RFC 8032, section 5.1.5).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSeed([u8; 32]);

impl SigningSeed {
    /// The seed of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for signing and sealing.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SigningSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSeed(..)")
    }
}
