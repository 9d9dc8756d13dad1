//! Periods without audit events, which show that the clock may have jumped.

use std::time::Duration;

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use crate::{
    database::{DatabaseError, columns::TimestampColumn, read, statements},
    domain::Timestamp,
    store::{Store, schema::core_audit_event},
};

/// The times of the audit events in a period, without its ends.
#[diesel::dsl::auto_type]
fn audit_times_between(begin: TimestampColumn, end: TimestampColumn) -> _ {
    core_audit_event::table
        .filter(core_audit_event::at.gt(begin))
        .filter(core_audit_event::at.lt(end))
        .select(core_audit_event::at)
}

statements! {
    /// Statements that find times of audit events.
    trait AuditTimeStatements {
        /// Returns the time of the first event after `begin` and before `end`.
        async fn first_audit_time(
            &mut self,
            begin: Timestamp,
            end: Timestamp,
        ) -> Result<Option<Timestamp>, DatabaseError> {
            let times = audit_times_between(TimestampColumn(begin), TimestampColumn(end));
            let first: Option<TimestampColumn> =
                times.order(core_audit_event::at.asc()).first(self).await.optional()?;
            Ok(first.map(|at| at.0))
        }

        /// Returns the time of the last event after `begin` and before `end`.
        async fn last_audit_time(
            &mut self,
            begin: Timestamp,
            end: Timestamp,
        ) -> Result<Option<Timestamp>, DatabaseError> {
            let times = audit_times_between(TimestampColumn(begin), TimestampColumn(end));
            let last: Option<TimestampColumn> =
                times.order(core_audit_event::at.desc()).first(self).await.optional()?;
            Ok(last.map(|at| at.0))
        }
    }
}

impl Store {
    /// Returns the first period of at least `min` without any audit event that ends after `begin` and at
    /// `end` at the latest: the last event before it, and the first one after it or `end`. `None` if there is
    /// none, or no event.
    ///
    /// Each query skips up to `min`, so there are about two for each `min` between `begin` and `end`.
    pub async fn silence_of_audit(
        &self,
        begin: Timestamp,
        end: Timestamp,
        min: Duration,
    ) -> Result<Option<(Timestamp, Timestamp)>, DatabaseError> {
        let earliest = Timestamp::from_unix_micros(0);
        read!(&self.connections, connection => {
            let mut last = match connection.last_audit_time(earliest, begin).await? {
                Some(before) => before,
                None => match connection.first_audit_time(earliest, end).await? {
                    Some(first) => first,
                    None => return Ok(None),
                },
            };
            while end.since(last) >= min {
                let Some(next) = connection.last_audit_time(last, last.plus(min)).await? else {
                    let next = connection.first_audit_time(last, end).await?;
                    return Ok(Some((last, next.unwrap_or(end))));
                };
                last = next;
            }
            Ok(None)
        })
    }
}
