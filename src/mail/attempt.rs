//! What follows from an attempt to send.

use std::time::Duration;

use crate::{domain::Timestamp, store::OutgoingMail};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next server, or the folder, has the mail.
    Sent,
    /// It may work later: the server said 4xx, or was not there.
    Failed(String),
    /// It never will: the server said 5xx, or the mail cannot be made.
    Refused(String),
}

/// What to do with the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Note that it is done.
    MarkSent,
    /// Try again then.
    RetryAt(Timestamp, String),
    /// Never again.
    GiveUp(String),
}

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// After the first attempt; doubles each time.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `attempts` attempts (at least one), 20 % longer or shorter by `chance` (0 to 1), so that mails that
    /// failed together do not come back together.
    fn after(self, attempts: u32, chance: f64) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(0.8 + 0.4 * chance)
    }
}

/// Decides; no attempt is made after the link has expired.
pub(super) fn after_attempt(
    outcome: Outcome,
    mail: &OutgoingMail,
    backoff: Backoff,
    now: Timestamp,
    chance: f64,
) -> Next {
    match outcome {
        Outcome::Sent => Next::MarkSent,
        Outcome::Refused(cause) => Next::GiveUp(cause),
        Outcome::Failed(cause) => {
            let at = now.plus(backoff.after(mail.attempts, chance));
            if at < mail.expires_at {
                Next::RetryAt(at, cause)
            } else {
                Next::GiveUp(format!(
                    "the link expires before the next attempt; the last one failed: {cause}"
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
            username: Username::parse("Ada").unwrap(),
            sealed_token: None,
            message_id: "1@x".into(),
            created_at: start,
            expires_at: start.plus(Duration::from_hours(24)),
            attempts,
            lease_until: start,
        }
    }

    fn failed(attempts: u32, now: Timestamp, chance: f64) -> Next {
        after_attempt(Outcome::Failed("451".into()), &mail(attempts), BACKOFF, now, chance)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let now = Timestamp::from_unix_micros(0);
        for (attempts, seconds) in
            [(1, 30), (2, 60), (3, 120), (6, 960), (7, 1_800), (33, 1_800), (u32::MAX, 1_800)]
        {
            let at = now.plus(Duration::from_secs(seconds));
            assert_eq!(failed(attempts, now, 0.5), Next::RetryAt(at, "451".into()), "{attempts}");
        }
    }

    #[test]
    fn chance_moves_a_wait_by_a_fifth() {
        let now = Timestamp::from_unix_micros(0);
        assert_eq!(failed(1, now, 0.0), Next::RetryAt(now.plus(Duration::from_secs(24)), "451".into()));
        assert_eq!(failed(1, now, 1.0), Next::RetryAt(now.plus(Duration::from_secs(36)), "451".into()));
    }

    #[test]
    fn no_attempt_is_made_after_the_link_has_expired() {
        let late = mail(1).expires_at.minus(Duration::from_secs(30));
        assert!(matches!(failed(1, late, 0.5), Next::GiveUp(cause) if cause.contains("451")));
    }

    #[test]
    fn a_refused_mail_is_given_up() {
        let next = after_attempt(Outcome::Refused("550".into()), &mail(1), BACKOFF, mail(1).created_at, 0.5);
        assert_eq!(next, Next::GiveUp("550".into()));
    }
}
