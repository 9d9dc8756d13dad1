//! How often passwords may be guessed, people register and mails be asked for.
//!
//! An attempt is counted before its password is checked, in a transaction of its own: a thousand guesses made at once, over
//! several instances, are a thousand attempts. The right password takes its account's count back to nothing, so what is
//! counted are failures in a row. Waits grow, and all of them end: nobody can lock somebody out for ever.

use std::time::Duration;

use super::{AccountError, Accounts};
use crate::{
    domain::{AuditEvent, AuditKind, ClientAddress, Email, Origin, Timestamp},
    store::{Attempts, Counted, KnownAddress, RightPassword, Subject},
};

/// After so long without an attempt an account's failures are forgotten, so that those of a year do not add up.
const FAILURES_KEPT: Duration = Duration::from_hours(24);

/// How far apart the clocks of two instances may be, or the times of two calls that wait for the same row.
const SKEW_MAX: Duration = Duration::from_mins(1);

/// How often passwords may be guessed.
#[derive(Debug, Clone, Copy)]
pub struct ThrottleOptions {
    /// Failures in a row on one account before callers have to wait; at least 1.
    pub failures_max: u32,
    /// The first wait. Each further failure doubles it.
    pub wait_first: Duration,
    /// The longest wait but `pause`.
    pub wait_max: Duration,
    /// Failures in a row on one account before `pause`.
    pub failures_in_a_row_max: u32,
    /// How long an account takes no password after that; then it counts from the beginning.
    pub pause: Duration,
    /// Failures on all accounts together; beyond it all logins are refused for the rest of its window.
    pub total: Budget,
    /// Failures from one end user's address, where it is known.
    pub failures_from: Budget,
    /// Registrations from one address.
    pub registrations_from: Budget,
    /// Links that may be asked for again, for each mailbox.
    pub resends_to: Budget,
    /// The same from one address.
    pub resends_from: Budget,
    /// How long an address is known as that of somebody who logged in from there.
    pub address_known: Duration,
}

/// So many within so long; the window begins with the first.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// How many; at least 1.
    pub max: u32,
    /// Within how long.
    pub window: Duration,
}

/// What limits a subject's attempts.
#[derive(Debug, Clone, Copy)]
enum Rule {
    InARow(ThrottleOptions),
    Within(Budget),
}

impl Rule {
    /// The attempts with this one, or until when it is refused.
    fn after_another(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        match self {
            Self::InARow(options) => options.after_another(before, now),
            Self::Within(budget) => budget.after_another(before, now),
        }
    }
}

/// An attempt at a password that was counted.
pub(super) struct Guess {
    account: Subject,
    budgets: Vec<Subject>,
    from: Option<KnownAddress>,
}

impl Accounts {
    /// Counts an attempt at the password of this account. From an address that is known as its owner's it is counted apart, so
    /// that nobody else can make them wait there.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], whether the account exists or not; the attempt was not counted then.
    pub(super) async fn count_guess(&self, email: &Email, origin: &Origin) -> Result<Guess, AccountError> {
        let client = origin.client;
        let now = self.with.clock.now();
        let from = client.map(|client| KnownAddress::new(email, client));
        let account = match from {
            Some(from) if self.with.store.knows_address(from, now).await? => Subject::password_at(&from),
            _ => Subject::password_of(email),
        };
        let options = self.options.throttle;
        let mut rules = vec![(account, Rule::InARow(options))];
        if let Some(client) = client {
            rules.push((Subject::passwords_from(client), Rule::Within(options.failures_from)));
        }
        // Last: all logins meet in this row, and each holds it for the shortest time.
        rules.push((Subject::any_password(), Rule::Within(options.total)));
        let budgets = rules.iter().skip(1).map(|(subject, _)| *subject).collect();
        let counted = self.count(rules, now).await;
        let event = || self.with.audit.event(AuditKind::AuthnLoginFailMax, origin);
        counted.map_err(|error| self.with.audit.refused(event(), Some(email), error))?;
        Ok(Guess { account, budgets, from })
    }

    /// Counts a mail that somebody asks for, whether it will be sent or not.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], for every mailbox alike; it was not counted then.
    pub(super) async fn count_mail(
        &self,
        mails_to: Subject,
        email: &Email,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let options = self.options.throttle;
        let mut rules = vec![(mails_to, Rule::Within(options.resends_to))];
        if let Some(client) = origin.client {
            rules.push((Subject::resends_from(client), Rule::Within(options.resends_from)));
        }
        let counted = self.count(rules, self.with.clock.now()).await;
        let event = || self.with.audit.event(AuditKind::ExcessRateLimitExceeded, origin);
        counted.map_err(|error| self.with.audit.refused(event(), Some(email), error))
    }

    /// Counts a mail that only tells of something.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; it was not counted then.
    pub(super) async fn count_notice(&self, email: &Email) -> Result<(), AccountError> {
        let rule = Rule::Within(self.options.throttle.resends_to);
        self.count(vec![(Subject::notices_to(email), rule)], self.with.clock.now()).await
    }

    /// Counts a registration, whether it will succeed or not: each may tell whether an email is taken.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`]; it was not counted then.
    pub(super) async fn count_registration(&self, client: Option<ClientAddress>) -> Result<(), AccountError> {
        let Some(client) = client else { return Ok(()) };
        let rule = Rule::Within(self.options.throttle.registrations_from);
        self.count(vec![(Subject::registrations_from(client), rule)], self.with.clock.now()).await
    }

    async fn count(&self, rules: Vec<(Subject, Rule)>, now: Timestamp) -> Result<(), AccountError> {
        let (subjects, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
        let decide = move |known: &[Option<Attempts>]| {
            rules.iter().zip(known).map(|(rule, known)| rule.after_another(*known, now)).collect()
        };
        match self.with.store.count_attempt(subjects, now, decide).await? {
            Counted::Admitted => Ok(()),
            Counted::Refused { until } => {
                Err(AccountError::TooManyAttempts { retry_after: until.since(now) })
            }
        }
    }

    /// What a right password takes back; the event says what came of it.
    pub(super) fn right_password(&self, guess: &Guess, event: Option<AuditEvent>) -> RightPassword {
        let until = self.with.clock.now().plus(self.options.throttle.address_known);
        RightPassword {
            of: guess.account,
            one_of: guess.budgets.clone(),
            from: guess.from.map(|from| (from, until)),
            event,
        }
    }

    /// The password was right, and nothing came of it. That it could not be noted changes no answer.
    pub(super) async fn forgive(&self, guess: &Guess) {
        let noted = self.with.store.note_right_password(self.right_password(guess, None)).await;
        if let Err(error) = noted {
            tracing::warn!(error = %error.chain(), "Failed logins of an account still count after the right password");
        }
    }
}

impl ThrottleOptions {
    /// An account's attempts with this one, or until when it is refused.
    fn after_another(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        // Without a wait there is nothing to be early for: those who come at once are counted in another order than they came in.
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

    /// How long the next attempt has to wait after so many failures.
    fn wait_after(self, failures: u32) -> Duration {
        match failures.checked_sub(self.failures_max) {
            None => Duration::ZERO,
            Some(further) => self.wait_first.saturating_mul(2_u32.saturating_pow(further)).min(self.wait_max),
        }
    }
}

impl Budget {
    /// What was spent with this one, or until when it is refused.
    fn after_another(self, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
        // A window that ends later than one that begins about now was set by a clock that went wrong.
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

/// Refuses an attempt that comes before its time. A wait that is longer than the longest there is was set by a clock that went
/// wrong, and does not count.
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
        failures_from: BUDGET,
        registrations_from: BUDGET,
        resends_to: BUDGET,
        resends_from: BUDGET,
        address_known: Duration::from_hours(24 * 90),
    };

    const BUDGET: Budget = Budget { max: 1_000, window: Duration::from_mins(15) };

    const BEGIN: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

    /// Guesses as often as it may, from the beginning on for so long; gives when.
    fn guesses_of_an_impatient_attacker(lasting: Duration) -> Vec<Timestamp> {
        let (mut now, mut known, mut guesses) = (BEGIN, None, Vec::new());
        while now.since(BEGIN) < lasting {
            let live = known.filter(|attempts: &Attempts| attempts.expires_at > now);
            match OPTIONS.after_another(live, now) {
                Ok(attempts) => {
                    known = Some(attempts);
                    guesses.push(now);
                }
                Err(until) => now = until,
            }
        }
        guesses
    }

    fn most_within(guesses: &[Timestamp], span: Duration) -> usize {
        let within =
            |from: &Timestamp| guesses.iter().filter(|at| *at >= from && at.since(*from) < span).count();
        guesses.iter().map(within).max().unwrap_or_default()
    }

    #[test]
    fn no_quarter_of_an_hour_sees_more_than_ten_guesses_and_no_row_more_than_a_hundred() {
        let guesses = guesses_of_an_impatient_attacker(Duration::from_hours(24 * 30));
        assert_eq!(most_within(&guesses, Duration::from_mins(15)), 10);
        // 100 failures, a day's pause, and so on.
        let pauses = guesses.windows(2).filter(|pair| pair[1].since(pair[0]) >= OPTIONS.pause).count();
        assert!(guesses.len() <= 100 * (pauses + 1), "{} guesses, {pauses} pauses", guesses.len());
        assert!(pauses >= 4);
    }

    #[test]
    fn waits_grow_and_end() {
        let minutes = |failures| OPTIONS.wait_after(failures).as_secs() / 60;
        assert_eq!([9, 10, 11, 12, 13, 99].map(minutes), [0, 15, 30, 60, 60, 60]);
    }

    #[test]
    fn whoever_comes_at_the_same_moment_is_counted_and_not_early() {
        let a_moment_later = BEGIN.plus(Duration::from_millis(5));
        let first = OPTIONS.after_another(None, a_moment_later);
        assert_eq!(OPTIONS.after_another(first.ok(), BEGIN).map(|attempts| attempts.count), Ok(2));
        let first = BUDGET.after_another(None, a_moment_later);
        assert_eq!(BUDGET.after_another(first.ok(), BEGIN).map(|attempts| attempts.count), Ok(2));
    }

    #[test]
    fn a_refused_attempt_is_told_when_the_next_may_be() {
        let locked = Attempts {
            count: 10,
            refused_until: BEGIN.plus(OPTIONS.wait_first),
            expires_at: BEGIN.plus(FAILURES_KEPT),
        };
        assert_eq!(OPTIONS.after_another(Some(locked), BEGIN), Err(locked.refused_until));
        assert_eq!(
            OPTIONS.after_another(Some(locked), locked.refused_until).map(|attempts| attempts.count),
            Ok(11)
        );
    }

    #[test]
    fn a_wait_set_by_a_clock_that_was_wrong_does_not_lock() {
        let year = Duration::from_hours(24 * 365);
        let absurd = Attempts { count: 10, refused_until: BEGIN.plus(year), expires_at: BEGIN.plus(year) };
        assert_eq!(OPTIONS.after_another(Some(absurd), BEGIN).map(|attempts| attempts.count), Ok(11));
        let window = Attempts { count: 1_000, refused_until: BEGIN, expires_at: BEGIN.plus(year) };
        assert_eq!(BUDGET.after_another(Some(window), BEGIN).map(|attempts| attempts.count), Ok(1));
    }

    #[test]
    fn a_budget_is_for_each_window() {
        let mut known = None;
        for count in 1..=BUDGET.max {
            known = Some(BUDGET.after_another(known, BEGIN).unwrap());
            assert_eq!(known.map(|attempts| attempts.count), Some(count));
        }
        let later = BEGIN.plus(Duration::from_mins(14));
        assert_eq!(BUDGET.after_another(known, later), Err(BEGIN.plus(BUDGET.window)));
        assert_eq!(BUDGET.after_another(None, BEGIN.plus(BUDGET.window)).map(|all| all.count), Ok(1));
    }
}
