//! Time, passed in.
//!
//! The only caller of `now()` in the crate, so that tests own time and a clock that jumps is one thing to think about.
//! Civil time ([`Clock::now`]) dates rows and ends tokens; monotonic time ([`Clock::instant`]) measures durations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime},
};

use crate::domain::Timestamp;

/// Tells the time: the system's, or one that a test moves. Cheap to clone; clones share a test's time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `None` follows the system; `Some` holds a test's time in microseconds since the Unix epoch.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `start` until [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start.unix_micros()))) }
    }

    /// The civil time, UTC, to the microsecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(match &self.manual {
            Some(micros) => micros.load(Ordering::SeqCst),
            None => system_micros(),
        })
    }

    /// Monotonic time, for measuring durations; unaffected by [`Clock::set`].
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Sets a manual clock, forward or back; the system's clock ignores it.
    pub fn set(&self, now: Timestamp) {
        if let Some(micros) = &self.manual {
            micros.store(now.unix_micros(), Ordering::SeqCst);
        }
    }
}

/// Microseconds since the Unix epoch; a system clock before 1970 reads as the epoch.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
fn system_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
