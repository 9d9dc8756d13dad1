//! The source of randomness, passed to the code that needs it.
//!
//! All secrets and identifiers that the service generates use this module: the operating system's generator,
//! or a repeatable sequence in tests.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest, Sha256};

/// A source of random bytes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Entropy {
    /// `None` for the operating system's generator; `Some` holds the seed and the number of blocks used so
    /// far.
    seeded: Option<Arc<(u64, AtomicU64)>>,
}

impl Entropy {
    /// Returns the operating system's generator (`getrandom(2)` on Linux), which is suitable for keys and
    /// tokens.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Creates a repeatable sequence for tests. It must never generate real secrets.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Arc::new((seed, AtomicU64::new(0)))) }
    }

    /// Returns `N` random bytes.
    ///
    /// # Panics
    /// If the operating system has no generator. The service would already have failed at its start.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.seeded {
            None => fill_from_system(&mut bytes),
            Some(sequence) => fill_from_sequence(sequence, &mut bytes),
        }
        bytes
    }

    /// Returns random bytes for a UUID that is not secret. Each thread has a buffer, which one `getrandom(2)`
    /// fills with 1,024 bytes for 64 identifiers. The bytes stay in memory until they are used, so a secret
    /// must not be made of them.
    ///
    /// # Panics
    /// Like [`Entropy::bytes`].
    #[must_use]
    pub fn identifier(&self) -> [u8; 16] {
        match &self.seeded {
            None => IDENTIFIERS.with_borrow_mut(IdentifierBuffer::next),
            Some(_) => self.bytes(),
        }
    }

    /// Returns a random number from 0 to 1, for jitter.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        f64::from(u32::from_le_bytes(self.bytes())) / f64::from(u32::MAX)
    }
}

/// The number of identifiers in a buffer: enough that the system call costs little per identifier.
const IDENTIFIERS_PER_FILL: usize = 64;

thread_local! {
    static IDENTIFIERS: RefCell<IdentifierBuffer> =
        const { RefCell::new(IdentifierBuffer { blocks: [[0; 16]; IDENTIFIERS_PER_FILL], left: 0 }) };
}

struct IdentifierBuffer {
    blocks: [[u8; 16]; IDENTIFIERS_PER_FILL],
    /// The number of blocks that are not used yet: the first ones.
    left: usize,
}

impl IdentifierBuffer {
    fn next(&mut self) -> [u8; 16] {
        if self.left == 0 {
            fill_from_system(self.blocks.as_flattened_mut());
            self.left = self.blocks.len();
        }
        self.left -= 1;
        self.blocks.get(self.left).copied().expect("`left` counts down from the number of blocks")
    }
}

#[expect(clippy::disallowed_methods, reason = "the only place that calls the system's generator")]
fn fill_from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system's generator works once the machine has booted");
}

/// Fills `bytes` with blocks of a sequence. Each block is the SHA-256 (32 bytes) of the seed and the number
/// of the block.
fn fill_from_sequence((seed, blocks_used): &(u64, AtomicU64), bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(32) {
        let block = blocks_used.fetch_add(1, Ordering::SeqCst);
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(block.to_le_bytes());
        for (byte, random) in chunk.iter_mut().zip(digest.finalize()) {
            *byte = random;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn identifiers_are_unique() {
        for entropy in [Entropy::system(), Entropy::seeded(1)] {
            let drawn: HashSet<[u8; 16]> = (0..1_000).map(|_| entropy.identifier()).collect();
            assert_eq!(drawn.len(), 1_000);
        }
    }
}
