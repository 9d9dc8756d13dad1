//! Decides what follows an attempt to send a mail.

use std::time::Duration;

use crate::{
    domain::Timestamp,
    store::{CLOCK_DIFFERENCE_MAX, OutgoingMail},
};

/// The result of an attempt to send a mail. The text is the cause of the failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeliveryOutcome {
    /// The SMTP server accepted the mail, or the folder holds it.
    Sent,
    /// A temporary failure: a 4xx reply, a 5xx reply that concerns this service, no connection, a timeout, a
    /// daily limit that cannot be read, a folder that cannot be written, or a token that this
    /// instance cannot decrypt.
    FailedForNow(String),
    /// A daily limit is reached: the mail may be sent at this time.
    Postponed(Timestamp),
    /// A permanent failure: a 5xx reply that concerns the recipient or the content, or a mail that cannot be
    /// composed.
    Refused(String),
    /// The link expired before this attempt.
    Expired,
}

impl DeliveryOutcome {
    /// Returns the cause of a failure.
    pub(super) fn into_cause(self) -> Option<String> {
        match self {
            Self::FailedForNow(cause) | Self::Refused(cause) => Some(cause),
            Self::Sent | Self::Postponed(_) | Self::Expired => None,
        }
    }
}

/// What to record in the outbox after an attempt. The text is the cause of the failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// The mail was sent.
    MarkSent,
    /// The attempt failed; the next attempt is due at this time.
    RetryAt(Timestamp, String),
    /// The attempt failed; there is no next attempt.
    MarkFailed(String),
    /// The link has expired, or expires before the next attempt.
    Expire(String),
}

/// Why a mail waits that is beyond a daily limit.
const DAILY_LIMIT: &str = "mail.daily-per-address-max or mail.daily-total-max is reached";

/// The largest part of a wait that a random jitter adds to it or takes from it.
const JITTER_MAX: f64 = 0.2;

/// The longest lease that the settings allow: twice the maximum of `mail.timeout`.
const LEASE_MAX: Duration = Duration::from_mins(20);

/// The waits between attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// The wait after the first attempt; it doubles after each further attempt.
    pub first: Duration,
    /// The longest wait, before the random part of [`Backoff::after`].
    pub max: Duration,
}

impl Backoff {
    /// Returns the latest time at which a mail can be due if the clock that scheduled it was right: the
    /// longest wait or lease, and a tolerance for the differences between the clocks of instances.
    pub(super) fn latest_due(self, now: Timestamp) -> Timestamp {
        now.plus(self.max.mul_f64(1.0 + JITTER_MAX).max(LEASE_MAX)).plus(CLOCK_DIFFERENCE_MAX)
    }

    /// Returns the wait after `attempts` attempts (at least one). A random `jitter` from 0 to 1 makes it up
    /// to 20 % shorter or longer. Mails that failed at the same time are thus retried at different times.
    pub(super) fn after(self, attempts: u32, jitter: f64) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(1.0 - JITTER_MAX + 2.0 * JITTER_MAX * jitter)
    }
}

/// Decides whether and when to retry. No retry is scheduled after the mail's link has expired.
pub(super) fn after_attempt(
    outcome: DeliveryOutcome,
    mail: &OutgoingMail,
    backoff: Backoff,
    now: Timestamp,
    jitter: f64,
) -> Next {
    match outcome {
        DeliveryOutcome::Sent => Next::MarkSent,
        DeliveryOutcome::Refused(cause) => Next::MarkFailed(cause),
        DeliveryOutcome::Expired => Next::Expire("the link expired before the mail could be sent".to_owned()),
        // Not later than the longest wait: what is due after [`Backoff::latest_due`] counts as set by a wrong
        // clock.
        DeliveryOutcome::Postponed(until) if until < mail.expires_at => {
            Next::RetryAt(until.min(now.plus(backoff.max)), DAILY_LIMIT.to_owned())
        }
        DeliveryOutcome::Postponed(_) => {
            Next::Expire(format!("the link expires before the mail may be sent: {DAILY_LIMIT}"))
        }
        DeliveryOutcome::FailedForNow(cause) => {
            let at = now.plus(backoff.after(mail.attempts, jitter));
            if at < mail.expires_at {
                Next::RetryAt(at, cause)
            } else {
                Next::Expire(format!(
                    "the link expires before the next attempt; the last attempt failed: {cause}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Email, MailKind, Username};

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(30), max: Duration::from_mins(30) };

    fn mail(attempts: u32) -> OutgoingMail {
        let start = Timestamp::from_unix_micros(0);
        OutgoingMail {
            id: 1,
            kind: MailKind::VerifyEmail,
            recipient: Email::parse("ada@example.com").unwrap(),
            username: Username::parse("Ada").ok(),
            sealed_token: None,
            message_id: "1@x".into(),
            created_at: start,
            expires_at: start.plus(Duration::from_hours(24)),
            attempts,
            lease_until: start,
        }
    }

    fn failed(attempts: u32, now: Timestamp, jitter: f64) -> Next {
        after_attempt(DeliveryOutcome::FailedForNow("451".into()), &mail(attempts), BACKOFF, now, jitter)
    }

    #[test]
    fn backoff_doubles_up_to_the_maximum() {
        let now = Timestamp::from_unix_micros(0);
        for (attempts, seconds) in
            [(1, 30), (2, 60), (3, 120), (6, 960), (7, 1_800), (33, 1_800), (u32::MAX, 1_800)]
        {
            let at = now.plus(Duration::from_secs(seconds));
            assert_eq!(failed(attempts, now, 0.5), Next::RetryAt(at, "451".into()), "{attempts}");
        }
    }

    #[test]
    fn jitter_changes_the_backoff_by_at_most_20_percent() {
        let now = Timestamp::from_unix_micros(0);
        assert_eq!(failed(1, now, 0.0), Next::RetryAt(now.plus(Duration::from_secs(24)), "451".into()));
        assert_eq!(failed(1, now, 1.0), Next::RetryAt(now.plus(Duration::from_secs(36)), "451".into()));
    }

    #[test]
    fn a_mail_beyond_a_daily_limit_is_due_when_the_limit_admits_it() {
        let (mail, now) = (mail(6), Timestamp::from_unix_micros(0));
        let next = |until| after_attempt(DeliveryOutcome::Postponed(until), &mail, BACKOFF, now, 0.5);
        let minutes = |minutes| now.plus(Duration::from_mins(minutes));
        assert_eq!(next(minutes(19)), Next::RetryAt(minutes(19), DAILY_LIMIT.to_owned()));
        assert_eq!(next(minutes(50)), Next::RetryAt(minutes(30), DAILY_LIMIT.to_owned()));
        assert!(matches!(next(mail.expires_at), Next::Expire(_)));
    }

    #[test]
    fn no_retry_is_scheduled_after_the_link_expires() {
        let late = mail(1).expires_at.minus(Duration::from_secs(30));
        assert!(matches!(failed(1, late, 0.5), Next::Expire(cause) if cause.contains("451")));
    }

    #[test]
    fn a_permanent_failure_is_not_retried() {
        let next =
            after_attempt(DeliveryOutcome::Refused("550".into()), &mail(1), BACKOFF, mail(1).created_at, 0.5);
        assert_eq!(next, Next::MarkFailed("550".into()));
    }
}
