//! Randomness, passed in.
//!
//! Every secret and identifier that the service makes comes from here: the operating system's generator, or a test's
//! repeatable sequence.

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
    /// `None` asks the operating system; `Some` counts the blocks of a test's sequence.
    seeded: Option<Arc<(u64, AtomicU64)>>,
}

impl Entropy {
    /// The operating system's generator (`getrandom(2)` on Linux), fit for keys and tokens.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A repeatable sequence for tests; never fit for secrets.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Arc::new((seed, AtomicU64::new(0)))) }
    }

    /// `N` random bytes.
    ///
    /// # Panics
    /// When the operating system has no generator at all, which the start of the service would have shown.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.seeded {
            None => fill_from_system(&mut bytes),
            Some(sequence) => fill_from_sequence(sequence, &mut bytes),
        }
        bytes
    }

    /// Random bytes for a UUID that is no secret: they are drawn ahead, some hundred bytes at once, and lie in memory until
    /// they are used, which spares each call its `getrandom(2)`.
    ///
    /// # Panics
    /// As [`Entropy::bytes`].
    #[must_use]
    pub fn identifier(&self) -> [u8; 16] {
        match &self.seeded {
            None => DRAWN_AHEAD.with_borrow_mut(DrawnAhead::next),
            Some(_) => self.bytes(),
        }
    }

    /// A random number from 0 to 1, for jitter.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        f64::from(u32::from_le_bytes(self.bytes())) / f64::from(u32::MAX)
    }
}

thread_local! {
    static DRAWN_AHEAD: RefCell<DrawnAhead> = const { RefCell::new(DrawnAhead { blocks: [[0; 16]; 64], left: 0 }) };
}

struct DrawnAhead {
    blocks: [[u8; 16]; 64],
    left: usize,
}

impl DrawnAhead {
    fn next(&mut self) -> [u8; 16] {
        if self.left == 0 {
            fill_from_system(self.blocks.as_flattened_mut());
            self.left = self.blocks.len();
        }
        self.left -= 1;
        self.blocks.get(self.left).copied().expect("`left` counts down from the number of blocks")
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
fn fill_from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system's generator answers once the machine has booted");
}

fn fill_from_sequence(sequence: &(u64, AtomicU64), bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(32) {
        let block = sequence.1.fetch_add(1, Ordering::SeqCst);
        let digest = Sha256::new().chain_update(sequence.0.to_le_bytes()).chain_update(block.to_le_bytes());
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
    fn no_identifier_comes_twice() {
        for entropy in [Entropy::system(), Entropy::seeded(1)] {
            let drawn: HashSet<[u8; 16]> = (0..1_000).map(|_| entropy.identifier()).collect();
            assert_eq!(drawn.len(), 1_000);
        }
    }
}
