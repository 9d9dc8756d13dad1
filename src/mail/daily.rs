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
#[derive(Debug, Clone, Copy)]
pub struct DailyLimits {
    /// To one address, for each cause of mails.
    pub per_address: u32,
    /// To all addresses together.
    pub total: u32,
}

impl DailyLimits {
    /// Counts a mail before it is sent. False if it exceeds a limit; it was not counted then.
    pub(super) async fn admit(
        self,
        store: &Store,
        mail: &OutgoingMail,
        now: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let limits = [self.per_address, self.total];
        let decide = move |known: &[Option<Attempts>]| {
            limits.iter().zip(known).map(|(max, known)| count_one(*max, *known, now)).collect()
        };
        // The shared row last, so that it is locked for the shortest time.
        let counted = store.count_attempt(subjects(mail), now, decide).await?;
        Ok(matches!(counted, Admission::Admitted))
    }

    /// Takes back what [`DailyLimits::admit`] counted, for a mail that was not sent.
    pub(super) async fn withdraw(store: &Store, mail: &OutgoingMail) -> Result<(), DatabaseError> {
        store.uncount_attempt(subjects(mail)).await
    }
}

/// Returns what a mail is counted for: the mails with its cause to its mailbox, and all mails.
fn subjects(mail: &OutgoingMail) -> Vec<Subject> {
    vec![Subject::mailbox_mails(&mail.recipient, mail.kind.cause()), Subject::all_mails()]
}

/// Returns the mails in the window including this one, or the end of the window if it is full.
fn count_one(max: u32, before: Option<Attempts>, now: Timestamp) -> Result<Attempts, Timestamp> {
    let counted = Attempts::with_one_more_in_window(before, WINDOW, now);
    if counted.count > max { Err(counted.expires_at) } else { Ok(counted) }
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
        assert_eq!(count_one(2, None, START.plus(WINDOW)).map(|first| first.count), Ok(1));
    }

    #[test]
    fn a_window_set_by_a_wrong_clock_is_ignored() {
        let ahead = Attempts { count: 2, refused_until: START, expires_at: START.plus(WINDOW * 2) };
        assert_eq!(count_one(2, Some(ahead), START).map(|first| first.count), Ok(1));
    }
}
