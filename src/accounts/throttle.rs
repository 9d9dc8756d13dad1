//! Limits on password attempts, registrations and requested mails.
//!
//! An attempt is counted before its password is checked, in a transaction of its own. So a thousand
//! concurrent attempts, even on several instances, count as a thousand. The right password resets the count
//! of its account, so the count is the number of consecutive failures. The waits grow, but each of them ends:
//! an attacker cannot lock a user out permanently.

use std::time::Duration;

use super::{AccountError, Accounts, Budget, ThrottleOptions};
use crate::{
    domain::{AuditEvent, AuditKind, ClientAddress, Email, Origin, Timestamp},
    store::{Attempts, CorrectPassword, Counted, KnownAddress, Subject},
};

/// Time after the end of the last wait at which the failures of an account expire, so that the failures of a
/// year do not add up.
const FAILURES_KEPT: Duration = Duration::from_hours(24);

/// Maximum difference between the clocks of two instances, or between the times of two calls that wait for
/// the same row.
const SKEW_MAX: Duration = Duration::from_mins(1);

/// The limit on the attempts of one subject.
#[derive(Debug, Clone, Copy)]
enum Rule {
    ConsecutiveFailures(ThrottleOptions),
    PerWindow(Budget),
}

impl Rule {
    /// Returns the attempts including this one, or the time until which this one is refused.
    fn count_one(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        match self {
            Self::ConsecutiveFailures(options) => options.count_one(before, now),
            Self::PerWindow(budget) => budget.count_one(before, now),
        }
    }
}

/// A password attempt that was counted.
pub(super) struct PasswordAttempt {
    account: Subject,
    budgets: Vec<Subject>,
    from: Option<KnownAddress>,
}

impl Accounts {
    /// Counts an attempt at the password of this account. An attempt from an address from which the owner has
    /// logged in is counted separately, so that attempts from elsewhere do not make the owner wait.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], whether or not the account exists; the attempt was not counted. Or
    /// a database error.
    pub(super) async fn count_password_attempt(
        &self,
        email: &Email,
        origin: &Origin,
    ) -> Result<PasswordAttempt, AccountError> {
        let client = origin.client;
        let now = self.deps.env.clock.now();
        let from = client.map(|client| KnownAddress::new(email, client));
        let account = match from {
            Some(from) if self.deps.store.is_known_address(from, now).await? => Subject::password_at(&from),
            _ => Subject::password_of(email),
        };
        let options = self.options.throttle;
        let mut rules = vec![(account, Rule::ConsecutiveFailures(options))];
        if let Some(client) = client {
            rules.push((Subject::passwords_from(client), Rule::PerWindow(options.failures_per_address)));
        }
        // Last, because all logins share this row: each login locks it for the shortest time.
        rules.push((Subject::any_password(), Rule::PerWindow(options.total)));
        let budgets = rules.iter().skip(1).map(|(subject, _)| *subject).collect();
        let counted = self.count(rules, now).await;
        let event = || self.deps.audit.event(AuditKind::AuthnLoginFailMax, origin);
        counted.map_err(|error| self.deps.audit.refused(event(), Some(email), error))?;
        Ok(PasswordAttempt { account, budgets, from })
    }

    /// Counts a mail that was requested, whether or not it will be sent.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], whether or not the mailbox belongs to an account; the mail was not
    /// counted. Or a database error.
    pub(super) async fn count_mail(
        &self,
        mails_to: Subject,
        email: &Email,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let options = self.options.throttle;
        let mut rules = vec![(mails_to, Rule::PerWindow(options.resends_to))];
        if let Some(client) = origin.client {
            rules.push((Subject::resends_from(client), Rule::PerWindow(options.resends_from)));
        }
        let counted = self.count(rules, self.deps.env.clock.now()).await;
        let event = || self.deps.audit.event(AuditKind::ExcessRateLimitExceeded, origin);
        counted.map_err(|error| self.deps.audit.refused(event(), Some(email), error))
    }

    /// Counts a mail that only notifies its recipient.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the mail was not counted. Or a database error.
    pub(super) async fn count_notice(&self, email: &Email) -> Result<(), AccountError> {
        let rule = Rule::PerWindow(self.options.throttle.resends_to);
        self.count(vec![(Subject::notices_to(email), rule)], self.deps.env.clock.now()).await
    }

    /// Counts a registration, whether or not it will succeed: its result may reveal whether an email is
    /// taken. Without the end user's address, nothing is counted.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; the registration was not counted. Or a database error.
    pub(super) async fn count_registration(&self, client: Option<ClientAddress>) -> Result<(), AccountError> {
        let Some(client) = client else { return Ok(()) };
        let rule = Rule::PerWindow(self.options.throttle.registrations_from);
        self.count(vec![(Subject::registrations_from(client), rule)], self.deps.env.clock.now()).await
    }

    async fn count(&self, rules: Vec<(Subject, Rule)>, now: Timestamp) -> Result<(), AccountError> {
        let (subjects, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
        let decide = move |known: &[Option<Attempts>]| {
            rules.iter().zip(known).map(|(rule, known)| rule.count_one(*known, now)).collect()
        };
        match self.deps.store.count_attempt(subjects, now, decide).await? {
            Counted::Admitted => Ok(()),
            Counted::Refused { until } => {
                Err(AccountError::TooManyAttempts { retry_after: until.since(now) })
            }
        }
    }

    /// Returns the changes that a right password makes to the counters. The event records the result of the
    /// login.
    pub(super) fn right_password(
        &self,
        attempt: &PasswordAttempt,
        event: Option<AuditEvent>,
    ) -> CorrectPassword {
        let until = self.deps.env.clock.now().plus(self.options.throttle.known_address_lifetime);
        CorrectPassword {
            cleared: attempt.account,
            decremented: attempt.budgets.clone(),
            known_address: attempt.from.map(|from| (from, until)),
            event,
        }
    }

    /// Records a right password that opened no session. A failure does not change the response.
    pub(super) async fn record_right_password(&self, attempt: &PasswordAttempt) {
        let noted = self.deps.store.record_correct_password(self.right_password(attempt, None)).await;
        if let Err(error) = noted {
            tracing::warn!(error = %error.chain(), "Failed attempts not cleared after the right password");
        }
    }
}

impl ThrottleOptions {
    /// Returns the attempts of an account including this one, or the time until which this one is refused.
    fn count_one(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        // Below `failures_max` there is no wait, so no attempt is early: concurrent attempts may be counted
        // in another order than they arrived.
        let waiting = before.filter(|before| before.count >= self.failures_max);
        refuse_early(waiting, now, self.pause.max(self.wait_max))?;
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        if count >= self.failures_in_a_row_max {
            let until = now.plus(self.pause);
            return Ok(Attempts { count, refused_until: until, expires_at: until });
        }
        let refused_until = now.plus(self.wait_after(count));
        Ok(Attempts { count, refused_until, expires_at: refused_until.plus(FAILURES_KEPT) })
    }

    /// Returns the wait of the next attempt after this number of failures.
    fn wait_after(self, failures: u32) -> Duration {
        match failures.checked_sub(self.failures_max) {
            None => Duration::ZERO,
            Some(further) => self.wait_first.saturating_mul(2_u32.saturating_pow(further)).min(self.wait_max),
        }
    }
}

impl Budget {
    /// Returns the attempts in the window including this one, or the time until which this one is refused.
    fn count_one(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        // A window that ends later than one that begins now was set by a wrong clock, so it is ignored. The
        // tolerance is `SKEW_MAX`.
        let latest = now.plus(self.window).plus(SKEW_MAX);
        let window = before.filter(|before| before.expires_at <= latest);
        let expires_at = window.map_or(now.plus(self.window), |window| window.expires_at);
        let count = window.map_or(0, |window| window.count).saturating_add(1);
        if count > self.max {
            return Err(expires_at);
        }
        Ok(Attempts { count, refused_until: now, expires_at })
    }
}

/// Refuses an attempt before the end of its wait. A wait longer than `longest` was set by a wrong clock and
/// is ignored.
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
        registrations_from: BUDGET,
        resends_to: BUDGET,
        resends_from: BUDGET,
        known_address_lifetime: Duration::from_hours(24 * 90),
    };

    const BUDGET: Budget = Budget { max: 1_000, window: Duration::from_mins(15) };

    const START: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

    /// Returns the times of the guesses of an attacker who guesses as often as possible for this long.
    fn guesses_of_an_impatient_attacker(lasting: Duration) -> Vec<Timestamp> {
        let (mut now, mut known, mut guesses) = (START, None, Vec::new());
        while now.since(START) < lasting {
            let live = known.filter(|attempts: &Attempts| attempts.expires_at > now);
            match OPTIONS.count_one(live, now) {
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
        let pauses = guesses.windows(2).filter(|pair| pair[1].since(pair[0]) >= OPTIONS.pause).count();
        assert!(guesses.len() <= 100 * (pauses + 1), "{} guesses, {pauses} pauses", guesses.len());
        assert!(pauses >= 4);
    }

    #[test]
    fn waits_double_up_to_a_maximum() {
        let minutes = |failures| OPTIONS.wait_after(failures).as_secs() / 60;
        assert_eq!([9, 10, 11, 12, 13, 99].map(minutes), [0, 15, 30, 60, 60, 60]);
    }

    #[test]
    fn concurrent_attempts_are_counted_and_not_refused() {
        let slightly_later = START.plus(Duration::from_millis(5));
        let first = OPTIONS.count_one(None, slightly_later);
        assert_eq!(OPTIONS.count_one(first.ok(), START).map(|attempts| attempts.count), Ok(2));
        let first = BUDGET.count_one(None, slightly_later);
        assert_eq!(BUDGET.count_one(first.ok(), START).map(|attempts| attempts.count), Ok(2));
    }

    #[test]
    fn a_refusal_states_when_the_next_attempt_is_admitted() {
        let locked = Attempts {
            count: 10,
            refused_until: START.plus(OPTIONS.wait_first),
            expires_at: START.plus(FAILURES_KEPT),
        };
        assert_eq!(OPTIONS.count_one(Some(locked), START), Err(locked.refused_until));
        assert_eq!(
            OPTIONS.count_one(Some(locked), locked.refused_until).map(|attempts| attempts.count),
            Ok(11)
        );
    }

    #[test]
    fn a_wait_set_by_a_wrong_clock_does_not_lock() {
        let year = Duration::from_hours(24 * 365);
        let too_long = Attempts { count: 10, refused_until: START.plus(year), expires_at: START.plus(year) };
        assert_eq!(OPTIONS.count_one(Some(too_long), START).map(|attempts| attempts.count), Ok(11));
        let window = Attempts { count: 1_000, refused_until: START, expires_at: START.plus(year) };
        assert_eq!(BUDGET.count_one(Some(window), START).map(|attempts| attempts.count), Ok(1));
    }

    #[test]
    fn a_budget_limits_each_window() {
        let mut known = None;
        for count in 1..=BUDGET.max {
            known = Some(BUDGET.count_one(known, START).unwrap());
            assert_eq!(known.map(|attempts| attempts.count), Some(count));
        }
        let later = START.plus(Duration::from_mins(14));
        assert_eq!(BUDGET.count_one(known, later), Err(START.plus(BUDGET.window)));
        assert_eq!(BUDGET.count_one(None, START.plus(BUDGET.window)).map(|all| all.count), Ok(1));
    }
}
