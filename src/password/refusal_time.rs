//! The time of a refused check: that of the slowest stored hash, so that it does not show which scheme the
//! hash of a user has.

use std::time::{Duration, Instant};

use super::{HashSurvey, HashingError, Passwords, envelope::Measured, since};

/// Interval at which a waiting check reads the time of the slowest hash again: new measurements change it.
const WAIT_STEP: Duration = Duration::from_millis(50);

impl Passwords {
    /// Waits until a check that began at this time would be finished with any stored hash.
    pub(super) async fn wait_until_slowest(&self, began: Instant) {
        loop {
            let rest = self.shared.envelope.time().saturating_sub(since(&self.shared.env.clock, began));
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest.min(WAIT_STEP)).await;
        }
    }

    /// Returns an empty survey of the stored hashes, for [`Passwords::apply`].
    #[must_use]
    pub fn survey(&self) -> HashSurvey {
        HashSurvey::new(self.shared.cost)
    }

    /// Extends each refused check to `refusal_time_max` until the stored hashes are known.
    pub fn assume_slowest_hashes(&self) {
        self.shared.envelope.assume_slowest();
    }

    /// Measures one hash of each family in the survey on the hashing threads, and the dummy hash unless a
    /// slower bcrypt hash is among them. From then on, each refused check takes the time of the slowest.
    /// Measures nothing if all hashes take the work of the current cost.
    ///
    /// # Errors
    /// [`HashingError`]; the earlier measurements stay.
    pub async fn apply(&self, survey: HashSurvey) -> Result<(), HashingError> {
        let mut measured = Vec::new();
        for (work, hash) in survey.into_measured(self.dummy_hash()) {
            let clock = self.shared.env.clock.clone();
            let measure = move || {
                let began = clock.instant();
                hash.matches("");
                since(&clock, began)
            };
            let time = self.shared.pool.run(measure).await?;
            measured.push(Measured { work, time });
        }
        self.shared.envelope.replace(measured);
        Ok(())
    }
}
