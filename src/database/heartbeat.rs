//! The row that this instance writes on the primary every few seconds. A server that shows this row as it was
//! lately is a replica of the same database.
//!
//! The identifier of the cluster is not enough, since a cluster may hold several databases of this service.

use std::{collections::VecDeque, time::Duration};

use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::Instant;

use super::{
    columns::{SqlUuid, UuidColumn},
    postgres::PostgresPool,
    postgres_pool::Repeats,
};
use crate::database::DatabaseError;

/// Interval between two writes. Each is a commit of its own on the primary.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Interval after a failed write.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How much longer than the lag limit an earlier row is accepted. With the default time limits, a write that
/// succeeds takes less time.
const ACCEPTED_FOR: Duration = Duration::from_secs(5);

/// Largest number of writes in memory. With a lag limit that needs more (an hour and a half), the older rows
/// are refused.
const BEATS_MAX: usize = 1_024;

/// Writes the row of this instance, and deletes at most 100 rows of instances that have written none for more
/// than a day.
const WRITE: &str = "WITH gone AS (DELETE FROM kairos_heartbeat WHERE instance IN \
    (SELECT instance FROM kairos_heartbeat WHERE written_at < now() - interval '1 day' \
    AND instance IS DISTINCT FROM $1 LIMIT 100 FOR UPDATE SKIP LOCKED)) \
    INSERT INTO kairos_heartbeat (instance, number, written_at) \
    VALUES (coalesce($1, gen_random_uuid()), $2, now()) \
    ON CONFLICT (instance) DO UPDATE SET number = excluded.number, written_at = excluded.written_at \
    RETURNING instance";

#[derive(QueryableByName)]
struct WrittenRow {
    #[diesel(sql_type = SqlUuid)]
    instance: UuidColumn,
}

/// A write of the row, finished or not.
#[derive(Debug, Clone, Copy)]
struct Beat {
    began_at: Instant,
    number: i64,
    /// False while the write runs and after an error: a replica may show the row all the same.
    is_acknowledged: bool,
}

/// The writes of this instance, the newest last.
#[derive(Default)]
pub(super) struct Heartbeats {
    instance: Option<UuidColumn>,
    beats: VecDeque<Beat>,
}

impl Heartbeats {
    /// Returns the identifier of this instance, which it has after its first write.
    pub(super) fn instance(&self) -> Option<UuidColumn> {
        self.instance
    }

    /// Begins a write and returns its number.
    pub(super) fn begin(&mut self, at: Instant) -> i64 {
        let number = self.beats.back().map_or(1, |last| last.number.saturating_add(1));
        self.beats.push_back(Beat { began_at: at, number, is_acknowledged: false });
        while self.beats.len() > BEATS_MAX {
            self.beats.pop_front();
        }
        number
    }

    /// Records that the last write was committed, to the row of `instance`.
    pub(super) fn acknowledge(&mut self, instance: UuidColumn) {
        self.instance = Some(instance);
        if let Some(last) = self.beats.back_mut() {
            last.is_acknowledged = true;
        }
    }

    /// True if a replica with `number` in the row of this instance is recent enough: at `at`, the time of the
    /// primary's last report, it was behind the primary by at most the sum of `lag_max` and [`ACCEPTED_FOR`].
    pub(super) fn is_recent(&self, number: Option<i64>, at: Instant, lag_max: Duration) -> bool {
        let Some(shown) = number else { return false };
        // From the newest: a row is accepted until its successor is too old.
        let mut successor = None;
        for beat in self.beats.iter().rev() {
            if successor.is_some_and(|began_at| at.duration_since(began_at) > lag_max + ACCEPTED_FOR) {
                return false;
            }
            if beat.number == shown {
                return true;
            }
            if beat.is_acknowledged {
                successor = Some(beat.began_at);
            }
        }
        false
    }
}

/// Writes the row of `instance`, or of a new one. Returns the instance.
pub(super) async fn write_beat(
    primary: &PostgresPool,
    instance: Option<UuidColumn>,
    number: i64,
) -> Result<UuidColumn, DatabaseError> {
    let own = primary.clone();
    let write = async move {
        let mut leased = own.lease().await?;
        let written: Result<WrittenRow, DatabaseError> = leased
            .connection()
            .build_transaction()
            .read_committed()
            .run(async move |connection: &mut AsyncPgConnection| {
                let query = sql_query(WRITE).bind::<Nullable<SqlUuid>, _>(instance).bind::<BigInt, _>(number);
                Ok(query.get_result(connection).await?)
            })
            .await;
        let repeated_later = || Err(DatabaseError::unavailable("the write lost against another one"));
        leased.settle(written, &mut Repeats::of_write()).unwrap_or_else(repeated_later)
    };
    primary.run_write(write).await.map(|row| row.instance)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's own moments")]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(1);

    #[test]
    fn only_a_row_that_was_current_lately_is_recent() {
        let (mut beats, began) = (Heartbeats::default(), Instant::now());
        assert!(!beats.is_recent(Some(1), began, LAG_MAX), "nothing is written yet");
        for number in 1..=10_u32 {
            assert_eq!(beats.begin(began + number * BEAT_INTERVAL), i64::from(number));
            beats.acknowledge(UuidColumn(Uuid::from_u128(7)));
        }

        let last = began + 10 * BEAT_INTERVAL;
        for (shown, is_recent) in [(10, true), (9, true), (8, true), (7, false), (1, false), (50, false)] {
            assert_eq!(beats.is_recent(Some(shown), last, LAG_MAX), is_recent, "{shown}");
        }
        assert!(!beats.is_recent(None, last, LAG_MAX));
        assert!(beats.is_recent(Some(1), last, Duration::from_mins(1)), "the lag limit counts");
    }

    #[test]
    fn a_write_without_an_answer_makes_neither_row_unacceptable() {
        let (mut beats, began) = (Heartbeats::default(), Instant::now());
        beats.begin(began);
        beats.acknowledge(UuidColumn(Uuid::from_u128(7)));
        beats.begin(began + BEAT_INTERVAL);

        for seconds in [6, 60, 600] {
            let at = began + Duration::from_secs(seconds);
            assert!(beats.is_recent(Some(1), at, LAG_MAX) && beats.is_recent(Some(2), at, LAG_MAX));
        }
    }
}
