//! A checksum over rows that is the same on both engines and for any order of the rows.

use sha2::{Digest, Sha256};

use crate::database::columns::{TimestampColumn, UuidColumn};

/// The digest of one row. Each value is hashed with its length, so that no two different rows have the same
/// bytes.
pub(super) struct RowDigest(Sha256);

impl RowDigest {
    /// Starts with no values.
    pub(super) fn begin() -> Self {
        Self(Sha256::new())
    }

    /// Returns the SHA-256 of all values that were added.
    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

/// A value that is hashed as the same bytes on both engines.
pub(super) trait Canonical {
    fn add_to(&self, digest: &mut RowDigest);
}

impl Canonical for i64 {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(&self.to_be_bytes());
    }
}

impl Canonical for i32 {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(&self.to_be_bytes());
    }
}

impl Canonical for bool {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(&[u8::from(*self)]);
    }
}

impl Canonical for String {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(self.as_bytes());
    }
}

impl Canonical for Vec<u8> {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(self);
    }
}

impl Canonical for UuidColumn {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(self.0.as_bytes());
    }
}

impl Canonical for TimestampColumn {
    fn add_to(&self, digest: &mut RowDigest) {
        digest.bytes(&self.0.unix_micros().to_be_bytes());
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn add_to(&self, digest: &mut RowDigest) {
        match self {
            None => digest.bytes(&[]),
            Some(value) => {
                digest.bytes(&[1]);
                value.add_to(digest);
            }
        }
    }
}

/// Adds `digest` to `sum` modulo 2^256.
pub(super) fn add(sum: &mut [u8; 32], digest: &[u8; 32]) {
    let mut carry = 0;
    for (sum_byte, byte) in sum.iter_mut().zip(digest).rev() {
        let total = u16::from(*sum_byte) + u16::from(*byte) + carry;
        *sum_byte = total.to_be_bytes()[1];
        carry = total >> 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_same_for_any_order_and_carries() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        let digests = [[0xff; 32], [1; 32], [0x80; 32]];
        for digest in &digests {
            add(&mut one, digest);
        }
        for digest in digests.iter().rev() {
            add(&mut other, digest);
        }
        assert_eq!(one, other);
        let mut carried = [0xff; 32];
        add(&mut carried, &{
            let mut unit = [0; 32];
            unit[31] = 1;
            unit
        });
        assert_eq!(carried, [0; 32]);
    }
}
