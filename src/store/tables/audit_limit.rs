//! The limit of the audit trail: beyond it, the least valuable events are deleted first.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl,
    dsl::{count_star, max, min},
    sql_query,
    sql_types::BigInt,
};
use diesel_async::RunQueryDsl;

use crate::{
    database::{DatabaseError, read, write},
    store::{Store, schema::core_audit_event},
};

/// Maximum number of events that one transaction deletes. It then holds the writer for only a few
/// milliseconds.
const ROWS_MAX: i64 = 1_000;

/// Number of events that one query counts, so that a count of many millions needs no long query.
const COUNTED_MAX: i64 = 100_000;

/// True for events that changed nothing. The text is that of the index `core_audit_event_value_idx`, so that
/// the index is used.
const CHANGED_NOTHING: &str = "(reason IS NOT NULL OR kind = 'sensitive_read')";

/// The value of an event that changed nothing: a refusal about no account, of an unauthenticated caller (0)
/// or of another one (1); a refusal about an account (2); a read (3). The text is that of the index.
const VALUE: &str = "(CASE WHEN reason IS NULL THEN 3 WHEN auth_token IS NOT NULL THEN 2 \
                     WHEN caller = 'nobody' OR caller = 'pages' THEN 0 ELSE 1 END)";

/// Returns the statement that deletes at most `$1` events that changed nothing: the least valuable first, and
/// of these the oldest.
fn delete_least_valuable() -> String {
    let rows =
        format!("SELECT id FROM core_audit_event WHERE {CHANGED_NOTHING} ORDER BY {VALUE}, at, id LIMIT $1");
    format!("DELETE FROM core_audit_event WHERE id IN ({rows})")
}

/// Deletes the `$1` oldest events.
const DELETE_OLDEST: &str =
    "DELETE FROM core_audit_event WHERE id IN (SELECT id FROM core_audit_event ORDER BY at, id LIMIT $1)";

impl Store {
    /// Returns by how many the number of audit events exceeds `rows_max`; 0 if it does not.
    pub async fn excess_audit_events(&self, rows_max: i64) -> Result<i64, DatabaseError> {
        use core_audit_event as event;
        let ids: (Option<i64>, Option<i64>) = read!(&self.connections, connection => {
            Ok(event::table.select((min(event::id), max(event::id))).get_result(connection).await?)
        })?;
        let (Some(first), Some(last)) = ids else { return Ok(0) };
        // So few ids cannot belong to more than `rows_max` events: there is no need to count them.
        if last.saturating_sub(first) < rows_max {
            return Ok(0);
        }
        let (mut counted, mut after) = (0, first.saturating_sub(1));
        loop {
            let (count, next) = self.count_some_audit_events(after).await?;
            counted += count;
            match next {
                Some(next) => after = next,
                None => return Ok((counted - rows_max).max(0)),
            }
        }
    }

    /// Counts events after this id. Returns the last id that was counted, or `None` if no event is left.
    async fn count_some_audit_events(&self, after: i64) -> Result<(i64, Option<i64>), DatabaseError> {
        use core_audit_event as event;
        read!(&self.connections, connection => {
            let following = event::table.filter(event::id.gt(after));
            let last: Option<i64> = following
                .order(event::id)
                .select(event::id)
                .limit(1)
                .offset(COUNTED_MAX - 1)
                .get_result(connection)
                .await
                .optional()?;
            match last {
                Some(last) => Ok((COUNTED_MAX, Some(last))),
                None => Ok((following.select(count_star()).get_result(connection).await?, None)),
            }
        })
    }

    /// Deletes the `count` least valuable audit events, but at most 1,000 in one transaction. In this order:
    /// refusals about no account, those of unauthenticated callers first; refusals about an account; reads;
    /// completed actions. Of equal value, the oldest come first. Returns the number of deleted events.
    pub async fn delete_least_valuable_audit_events(&self, count: i64) -> Result<usize, DatabaseError> {
        let count = count.clamp(0, ROWS_MAX);
        write!(&self.connections, connection => {
            let deleted =
                sql_query(delete_least_valuable()).bind::<BigInt, _>(count).execute(connection).await?;
            let rest = count - i64::try_from(deleted).unwrap_or(count);
            if rest == 0 {
                return Ok(deleted);
            }
            let oldest = sql_query(DELETE_OLDEST).bind::<BigInt, _>(rest).execute(connection).await?;
            Ok(deleted + oldest)
        })
    }
}
