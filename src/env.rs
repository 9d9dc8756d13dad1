//! The sources of time and randomness, passed together so that tests control both.

use crate::{clock::Clock, entropy::Entropy};

/// The clock and the random generator. Clones share both.
#[derive(Debug, Clone)]
pub struct Env {
    /// Source of the current time.
    pub clock: Clock,
    /// Source of random bytes.
    pub entropy: Entropy,
}

impl Env {
    /// Returns the clock and the random generator of the system.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), entropy: Entropy::system() }
    }
}
