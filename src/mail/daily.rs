//! Limits the number of mails in a day, to one address and in total.

use std::time::Duration;

use crate::{
    database::DatabaseError,
    domain::Timestamp,
    store::{Admission, Attempts, OutgoingMail, Store, Subject},
};

/// The length of a window. It begins with the first mail in it.
const WINDOW: Duration = Duration::from_hours(24);

/// The most mails within 24 hours.
///
/// Beyond the limit of an address, its mails are not stopped but spread: each is sent some time after the one
/// before. A client that causes mails to an address can therefore delay the mails that its owner needs, but
/// not prevent them.
#[derive(Debug, Clone, Copy)]
pub struct DailyLimits {
    /// To one address, for each cause of mails.
    pub per_address: u32,
    /// To all addresses together. Some kinds of mails may use only a part of it
    /// ([`crate::domain::MailKind::daily_max`]).
    pub total: u32,
}

impl DailyLimits {
    /// Counts a mail before it is sent, or refuses it until a later time and counts nothing.
    pub(super) async fn admit(
        self,
        store: &Store,
        mail: &OutgoingMail,
        now: Timestamp,
    ) -> Result<Admission, DatabaseError> {
        let (interval, total) = (self.interval(mail), mail.kind.daily_max(self.total));
        let decide = move |known: &[Option<Attempts>]| {
            let mut known = known.iter().copied();
            let to_mailbox = count_to_mailbox(self.per_address, interval, known.next().flatten(), now)?;
            Ok(vec![to_mailbox, count_one(total, known.next().flatten(), now)?])
        };
        // The shared row last, so that it is locked for the shortest time.
        store.count_attempt(subjects(mail), now, decide).await
    }

    /// Returns the time between two mails to an address beyond its limit: a day divided by the limit, so at
    /// most twice the limit is sent in a day. For a link with a shorter lifetime, it is that lifetime: when
    /// the link of the last mail has expired, the next mail is sent.
    fn interval(self, mail: &OutgoingMail) -> Duration {
        let interval = longest_interval(self.per_address);
        let is_link = mail.sealed_token.is_some();
        if is_link { interval.min(mail.expires_at.since(mail.created_at)) } else { interval }
    }

    /// Takes back what [`DailyLimits::admit`] counted, for a mail that was not sent.
    pub(super) async fn withdraw(store: &Store, mail: &OutgoingMail) -> Result<(), DatabaseError> {
        store.uncount_attempt(subjects(mail)).await
    }
}

/// Returns the two counters of a mail: of the mails with its cause to its mailbox, and of all mails.
fn subjects(mail: &OutgoingMail) -> Vec<Subject> {
    vec![Subject::mailbox_mails(&mail.recipient, mail.kind.cause()), Subject::all_mails()]
}

/// Returns the mails to an address in the window including this one. A full window admits one more mail when
/// `interval` has passed since the last one.
///
/// # Errors
/// The time from which this mail is admitted: the end of `interval`, or that of the window if it is earlier.
fn count_to_mailbox(
    max: u32,
    interval: Duration,
    before: Option<Attempts>,
    now: Timestamp,
) -> Result<Attempts, Timestamp> {
    // Stored for every mail, whatever its own interval: the time of the last mail follows from it.
    let longest = longest_interval(max);
    let with_interval = |counted| Attempts { refused_until: now.plus(longest), ..counted };
    let end = match count_one(max, before, now) {
        Ok(counted) => return Ok(with_interval(counted)),
        Err(end) => end,
    };
    // A wait longer than the longest interval was set by a wrong clock: it does not refuse this mail.
    let last = before.filter(|last| last.refused_until <= now.plus(longest));
    let next = last.map(|last| last.refused_until.minus(longest).plus(interval));
    match next.filter(|next| *next > now) {
        Some(next) => Err(end.min(next)),
        None => Ok(with_interval(one_more(before, now))),
    }
}

/// Returns the longest time between two mails to an address beyond its limit: a day divided by the limit.
fn longest_interval(max: u32) -> Duration {
    WINDOW / max.max(1)
}

/// Returns the mails in the window including this one.
///
/// # Errors
/// The end of the window, if it is full.
fn count_one(max: u32, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
    let counted = one_more(before, now);
    if counted.count > max { Err(counted.expires_at) } else { Ok(counted) }
}

fn one_more(before: Option<Attempts>, now: Timestamp) -> Attempts {
    Attempts::with_one_more_in_window(before, WINDOW, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

    #[test]
    fn a_window_admits_the_limit_and_ends_after_a_day() {
        let first = count_one(2, None, START).unwrap();
        let later = START.plus(Duration::from_hours(23));
        let second = count_one(2, Some(first), later).unwrap();
        assert_eq!((second.count, second.expires_at), (2, START.plus(WINDOW)));
        assert_eq!(count_one(2, Some(second), later), Err(START.plus(WINDOW)));
        // The store returns no expired window.
        assert_eq!(count_one(2, None, START.plus(WINDOW)).map(|first| first.count), Ok(1));
    }

    #[test]
    fn beyond_the_limit_of_an_address_one_mail_follows_the_other() {
        let interval = Duration::from_mins(20);
        let count = |before, now| count_to_mailbox(2, interval, before, now);
        let second = count(count(None, START).ok(), START).unwrap();
        assert_eq!(count(Some(second), START), Err(START.plus(interval)));
        let third = count(Some(second), START.plus(interval)).unwrap();
        assert_eq!((third.count, third.expires_at), (3, START.plus(WINDOW)));
        assert_eq!(count(Some(third), START.plus(interval)), Err(START.plus(interval * 2)));
        let ahead = Attempts { refused_until: START.plus(longest_interval(2) * 2), ..second };
        assert!(count(Some(ahead), START).is_ok(), "a wait set by a wrong clock is ignored");
    }

    #[test]
    fn beyond_the_limit_of_an_address_mails_with_different_intervals_wait_for_each_other() {
        let (short, long) = (Duration::from_mins(20), longest_interval(2));
        let full = count_to_mailbox(2, long, count_to_mailbox(2, long, None, START).ok(), START).unwrap();
        assert_eq!(count_to_mailbox(2, short, Some(full), START), Err(START.plus(short)));
        let later = START.plus(short);
        let after_the_short_one = count_to_mailbox(2, short, Some(full), later).unwrap();
        assert_eq!(count_to_mailbox(2, short, Some(after_the_short_one), later), Err(later.plus(short)));
        assert_eq!(count_to_mailbox(2, long, Some(after_the_short_one), later), Err(later.plus(long)));
    }

    #[test]
    fn a_window_set_by_a_wrong_clock_is_ignored() {
        let ahead = Attempts { count: 2, refused_until: START, expires_at: START.plus(WINDOW * 2) };
        assert_eq!(count_one(2, Some(ahead), START).map(|first| first.count), Ok(1));
    }
}
