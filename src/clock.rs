//! The clock, passed to the code that needs it, so that tests can set the time.
//!
//! Apart from tests, this module is the only caller of the system's `now()` in the crate. Civil time
//! ([`Clock::now`]) is used for the timestamps of rows and the expiry of tokens; monotonic time
//! ([`Clock::instant`]) measures durations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime},
};

use crate::domain::Timestamp;

/// The system clock, or a manual clock that a test sets. Cheap to clone; clones of a manual clock share its
/// time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `None` for the system clock; `Some` holds the time of a manual clock in microseconds since the Unix
    /// epoch.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// Returns the system clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Creates a clock that shows `start` until [`Clock::set`] changes it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start.unix_micros()))) }
    }

    /// Returns the civil time (UTC) with a resolution of one microsecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(match &self.manual {
            Some(micros) => micros.load(Ordering::SeqCst),
            None => system_micros(),
        })
    }

    /// Returns the monotonic time, for measuring durations. [`Clock::set`] does not affect it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the system clock")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Sets a manual clock forward or back. Has no effect on the system clock.
    pub fn set(&self, now: Timestamp) {
        if let Some(micros) = &self.manual {
            micros.store(now.unix_micros(), Ordering::SeqCst);
        }
    }
}

/// Returns the microseconds since the Unix epoch, or 0 if the system clock shows a time before 1970.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the system clock")]
fn system_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
