//! The rules that limit attempts: after how many failures, or how many attempts in a window, the next one has
//! to wait.
//!
//! The waits grow, but each of them ends: an attacker cannot lock a user out permanently.

use std::time::Duration;

use super::{AccountError, Budget, ThrottleOptions};
use crate::{
    domain::Timestamp,
    store::{Admission, Attempts, Tally},
};

/// Time from the end of the last wait until the failures of an account expire. Without it, the failures of a
/// year would add up.
const FAILURES_LIFETIME: Duration = Duration::from_hours(24);

/// Time after which an attempt can be repeated that was refused because others were in progress. These are
/// settled within about the time of a hash.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

/// The consecutive failures that all known addresses of an account may cause together, as a multiple of those
/// that one may cause. Two, because a user who mistypes does so at few places, and the total must not grow
/// with the number of addresses.
const KNOWN_ADDRESSES_FACTOR: u32 = 2;

/// The limit on the attempts of one subject.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    ConsecutiveFailures(ThrottleOptions),
    PerWindow(Budget),
    PerAddress { budget: Budget, in_progress_max: u32 },
}

/// Returns [`AccountError::TooManyAttempts`] if the attempt was refused.
pub(super) fn require_admission(admission: Admission, now: Timestamp) -> Result<(), AccountError> {
    match admission {
        Admission::Admitted => Ok(()),
        Admission::Refused { until } => Err(AccountError::TooManyAttempts { retry_after: until.since(now) }),
    }
}

impl Rule {
    /// Returns the limit on the attempts from all known addresses of an account together.
    pub(super) const fn at_all_known_addresses(options: ThrottleOptions) -> Self {
        let failures_max = options.failures_max.saturating_mul(KNOWN_ADDRESSES_FACTOR);
        Self::ConsecutiveFailures(ThrottleOptions { failures_max, ..options })
    }

    /// Returns the limit on the attempts from one client address.
    pub(super) const fn per_address(options: ThrottleOptions) -> Self {
        Self::PerAddress {
            budget: options.failures_per_address,
            in_progress_max: options.in_progress_per_address_max,
        }
    }

    /// Returns the limit on the attempts of users with access tokens from one client address.
    /// Only the attempts in progress are limited: failures refuse no user.
    pub(super) const fn of_acting_users_per_address(options: ThrottleOptions) -> Self {
        Self::PerAddress {
            budget: Budget { max: u32::MAX, ..options.failures_per_address },
            in_progress_max: options.in_progress_per_address_max,
        }
    }

    /// Admits an attempt, or returns the time until which it is refused. An attempt in progress may become a
    /// failure, so it counts like one here.
    pub(super) fn admit(self, tally: Tally, now: Timestamp) -> Result<(), Timestamp> {
        match self {
            Self::ConsecutiveFailures(options) => options.admit_after_failures(tally, now),
            Self::PerAddress { in_progress_max, .. } if tally.in_progress >= in_progress_max => {
                Err(now.plus(IN_PROGRESS_RETRY))
            }
            Self::PerWindow(budget) | Self::PerAddress { budget, .. } => budget.admit_in_window(tally, now),
        }
    }

    /// Returns the failures including one at `at`.
    pub(super) fn count_failure(self, before: Option<Attempts>, at: Timestamp) -> Attempts {
        match self {
            Self::ConsecutiveFailures(options) => options.count_consecutive_failure(before, at),
            Self::PerWindow(budget) | Self::PerAddress { budget, .. } => {
                Attempts::with_one_more_in_window(before, budget.window, at)
            }
        }
    }

    /// Returns the attempts including this one, or the time until which this one is refused.
    pub(super) fn admit_and_count(
        self,
        before: Option<Attempts>,
        now: Timestamp,
    ) -> Result<Attempts, Timestamp> {
        self.admit(Tally { failures: before, in_progress: 0 }, now)?;
        Ok(self.count_failure(before, now))
    }
}

impl ThrottleOptions {
    /// Admits an attempt if the wait after the last failure is over and few enough attempts are in progress.
    /// Otherwise returns the time of the next attempt.
    fn admit_after_failures(self, tally: Tally, now: Timestamp) -> Result<(), Timestamp> {
        // Below this number of failures there is no wait. `refused_until` may then be slightly in the future,
        // because concurrent attempts are counted in another order than they arrived, so it is ignored.
        let failures_without_wait = self.failures_max.min(self.failures_in_a_row_max);
        let failures = tally.failures.map_or(0, |failures| failures.count);
        let waiting = tally.failures.filter(|failures| failures.count >= failures_without_wait);
        refuse_early(waiting, now, self.pause.max(self.wait_max))?;
        // After a wait, one attempt at a time.
        let in_progress_max = failures_without_wait.saturating_sub(failures).max(1);
        if tally.in_progress >= in_progress_max {
            return Err(now.plus(IN_PROGRESS_RETRY));
        }
        Ok(())
    }

    /// Returns the failures including one at `at`, and the wait after it.
    fn count_consecutive_failure(self, before: Option<Attempts>, at: Timestamp) -> Attempts {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        if count >= self.failures_in_a_row_max {
            let until = at.plus(self.pause);
            return Attempts { count, refused_until: until, expires_at: until };
        }
        let refused_until = at.plus(self.wait_after(count));
        Attempts { count, refused_until, expires_at: refused_until.plus(FAILURES_LIFETIME) }
    }

    /// Returns how long the next attempt has to wait after this number of failures.
    fn wait_after(self, failures: u32) -> Duration {
        match failures.checked_sub(self.failures_max) {
            None => Duration::ZERO,
            Some(further) => self.wait_first.saturating_mul(2_u32.saturating_pow(further)).min(self.wait_max),
        }
    }
}

impl Budget {
    /// Admits an attempt if the window has room for it and for the attempts in progress.
    fn admit_in_window(self, tally: Tally, now: Timestamp) -> Result<(), Timestamp> {
        let window = Attempts::in_window(tally.failures, self.window, now);
        let count = window.map_or(0, |window| window.count);
        match window {
            Some(window) if count >= self.max => Err(window.expires_at),
            _ if count.saturating_add(tally.in_progress) >= self.max => Err(now.plus(IN_PROGRESS_RETRY)),
            _ => Ok(()),
        }
    }
}

/// Refuses an attempt before the end of its wait. A wait longer than `longest` was set by a wrong clock, or
/// under a setting that was greater, and is ignored.
fn refuse_early(before: Option<Attempts>, now: Timestamp, longest: Duration) -> Result<(), Timestamp> {
    match before {
        Some(before) if before.refused_until > now && before.refused_until.since(now) <= longest => {
            Err(before.refused_until)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: ThrottleOptions = ThrottleOptions {
        failures_max: 10,
        wait_first: Duration::from_mins(15),
        wait_max: Duration::from_hours(1),
        failures_in_a_row_max: 100,
        pause: Duration::from_hours(24),
        total: BUDGET,
        failures_per_address: BUDGET,
        in_progress_per_address_max: 32,
        registrations_from: BUDGET,
        new_passwords: BUDGET,
        resends_to: BUDGET,
        resends_from: BUDGET,
        known_address_lifetime: Duration::from_hours(24 * 90),
    };

    const RULE: Rule = Rule::ConsecutiveFailures(OPTIONS);

    const BUDGET_RULE: Rule = Rule::PerWindow(BUDGET);

    const BUDGET: Budget = Budget { max: 1_000, window: Duration::from_mins(15) };

    const START: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

    #[test]
    fn users_at_one_address_share_places_but_do_not_refuse_each_other_by_failures() {
        let rule = Rule::of_acting_users_per_address(OPTIONS);
        let full = rule.count_failure(None, START);
        let full = Attempts { count: BUDGET.max, ..full };
        assert!(rule.admit(Tally { failures: Some(full), in_progress: 31 }, START).is_ok());
        let busy = Tally { failures: None, in_progress: 32 };
        assert_eq!(rule.admit(busy, START), Err(START.plus(IN_PROGRESS_RETRY)));
    }

    /// Returns the times of the guesses of an attacker who guesses as often as possible for this long.
    fn guesses_of_an_impatient_attacker(lasting: Duration) -> Vec<Timestamp> {
        let (mut now, mut known, mut guesses) = (START, None, Vec::new());
        while now.since(START) < lasting {
            let live = known.filter(|attempts: &Attempts| attempts.expires_at > now);
            match RULE.admit_and_count(live, now) {
                Ok(attempts) => {
                    known = Some(attempts);
                    guesses.push(now);
                }
                Err(until) => now = until,
            }
        }
        guesses
    }

    fn max_within(guesses: &[Timestamp], span: Duration) -> usize {
        let within =
            |from: &Timestamp| guesses.iter().filter(|at| *at >= from && at.since(*from) < span).count();
        guesses.iter().map(within).max().unwrap_or_default()
    }

    #[test]
    fn at_most_10_guesses_in_15_minutes_and_100_between_pauses() {
        let guesses = guesses_of_an_impatient_attacker(Duration::from_hours(24 * 30));
        assert_eq!(max_within(&guesses, Duration::from_mins(15)), 10);
        // 100 failures, a pause of a day, and so on.
        let runs: Vec<_> = guesses.chunk_by(|one, next| next.since(*one) < OPTIONS.pause).collect();
        assert!(runs.iter().all(|run| run.len() <= 100), "{runs:?}");
        assert!(runs.len() >= 5, "{} runs", runs.len());
    }

    #[test]
    fn waits_double_up_to_a_maximum() {
        let minutes = |failures| OPTIONS.wait_after(failures).as_secs() / 60;
        assert_eq!([9, 10, 11, 12, 13, 99].map(minutes), [0, 15, 30, 60, 60, 60]);
    }

    #[test]
    fn concurrent_attempts_are_counted_and_not_refused() {
        let slightly_later = START.plus(Duration::from_millis(5));
        let first = RULE.admit_and_count(None, slightly_later);
        assert_eq!(RULE.admit_and_count(first.ok(), START).map(|attempts| attempts.count), Ok(2));
        let first = BUDGET_RULE.admit_and_count(None, slightly_later);
        assert_eq!(BUDGET_RULE.admit_and_count(first.ok(), START).map(|attempts| attempts.count), Ok(2));
    }

    #[test]
    fn a_refusal_states_when_the_next_attempt_is_admitted() {
        let locked = Attempts {
            count: 10,
            refused_until: START.plus(OPTIONS.wait_first),
            expires_at: START.plus(FAILURES_LIFETIME),
        };
        assert_eq!(RULE.admit_and_count(Some(locked), START), Err(locked.refused_until));
        assert_eq!(
            RULE.admit_and_count(Some(locked), locked.refused_until).map(|attempts| attempts.count),
            Ok(11)
        );
    }

    #[test]
    fn a_wait_set_by_a_wrong_clock_does_not_lock() {
        let year = Duration::from_hours(24 * 365);
        let too_long = Attempts { count: 10, refused_until: START.plus(year), expires_at: START.plus(year) };
        assert_eq!(RULE.admit_and_count(Some(too_long), START).map(|attempts| attempts.count), Ok(11));
        let window = Attempts { count: 1_000, refused_until: START, expires_at: START.plus(year) };
        assert_eq!(BUDGET_RULE.admit_and_count(Some(window), START).map(|attempts| attempts.count), Ok(1));
    }

    #[test]
    fn a_budget_limits_each_window() {
        let mut known = None;
        for count in 1..=BUDGET.max {
            known = Some(BUDGET_RULE.admit_and_count(known, START).unwrap());
            assert_eq!(known.map(|attempts| attempts.count), Some(count));
        }
        let later = START.plus(Duration::from_mins(14));
        assert_eq!(BUDGET_RULE.admit_and_count(known, later), Err(START.plus(BUDGET.window)));
        // The store returns no expired window.
        assert_eq!(BUDGET_RULE.admit_and_count(None, START.plus(BUDGET.window)).map(|all| all.count), Ok(1));
    }

    #[test]
    fn attempts_in_progress_are_at_most_the_failures_left_or_one_after_a_wait() {
        for (failures, places) in [(0, 10), (7, 3), (9, 1), (10, 1), (42, 1)] {
            let at = START.minus(Duration::from_hours(2));
            let known = (0..failures).fold(None, |known, _| Some(RULE.count_failure(known, at)));
            let admits = |in_progress| RULE.admit(Tally { failures: known, in_progress }, START).is_ok();
            assert!(admits(places - 1) && !admits(places), "{failures} failures");
        }
    }

    #[test]
    fn one_client_has_at_most_the_configured_attempts_in_progress() {
        let rule = Rule::PerAddress { budget: BUDGET, in_progress_max: 32 };
        let admits = |in_progress| rule.admit(Tally { failures: None, in_progress }, START).is_ok();
        assert!(admits(31) && !admits(32));
    }

    #[test]
    fn all_known_addresses_together_have_twice_the_failures_of_one() {
        let rule = Rule::at_all_known_addresses(OPTIONS);
        let mut known = None;
        for _ in 0..20 {
            known = Some(rule.admit_and_count(known, START).unwrap());
        }
        assert_eq!(rule.admit_and_count(known, START), Err(START.plus(OPTIONS.wait_first)));
    }
}
