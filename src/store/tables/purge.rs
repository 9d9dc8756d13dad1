//! Deletes rows that are no longer needed, so that no table except `core_user` grows without limit.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, QueryDsl,
    dsl::{exists, not},
    sql_query,
};
use diesel_async::RunQueryDsl;

use super::{
    never_verified_users::{NeverVerifiedUserStatements, is_never_verified},
    password_attempts::SETTLEMENT_MAX,
    users::UserStatements,
};
use crate::{
    database::{
        DatabaseError,
        audit_log::RecordedEvents,
        columns::{SqlTimestamp, TimestampColumn},
        statements, write,
    },
    domain::AuditEvent,
    store::{
        Store,
        schema::{core_mail_outbox, core_mail_token, core_signing_key, core_user},
    },
};

/// Maximum number of rows that one transaction deletes from a table; rows with the same time as the last of
/// them are deleted too. The transaction then holds the writer for only a few milliseconds.
const ROWS_MAX: i64 = 1_000;

/// Maximum number of users that one transaction deletes. Each deletion removes dependent rows and records an
/// event.
const USERS_MAX: i64 = 100;

/// Retention periods.
#[derive(Debug, Clone, Copy)]
pub struct RetentionPeriods {
    /// Mailed tokens, after they expired. For this long, a used verification link is answered with "already
    /// verified".
    pub expired_tokens: Duration,
    /// Mails, after they were sent, failed permanently or were cancelled.
    pub finished_mails: Duration,
    /// Request ids of registrations, after the registration.
    pub request_ids: Duration,
    /// Users who never verified their email and are not disabled, after their registration and after the last
    /// link that was created for them.
    pub unverified_users: Duration,
    /// Sessions, after they began.
    pub sessions: Duration,
    /// Sessions, after the last refresh.
    pub idle_sessions: Duration,
    /// Audit events, after their time.
    pub audit_events: Duration,
}

/// The result of [`Store::purge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Number of deleted rows in all tables, without signing keys and without rows that the deletion of a
    /// user removed.
    pub rows: usize,
    /// Number of deleted users among them.
    pub users: usize,
    /// True if a table reached the limit of one transaction, so more rows may be due: call again.
    pub has_more: bool,
}

/// The rows of a table that are due for deletion: the table, its column with a time, the operator between the
/// column and the limit (`<` or `<=`), and the limit.
type Due = (&'static str, &'static str, &'static str, TimestampColumn);

/// The users who registered before `then`, never verified their email, are not disabled, were not imported,
/// and have no link created at `then` or later.
#[diesel::dsl::auto_type]
fn abandoned_before(then: TimestampColumn) -> _ {
    let recent_link = core_mail_token::table
        .filter(core_mail_token::user_id.eq(core_user::id))
        .filter(core_mail_token::created_at.ge(then));
    core_user::table
        .filter(is_never_verified())
        .filter(core_user::created_at.lt(then))
        .filter(not(exists(recent_link)))
}

statements! {
    /// Statements of the purge.
    trait PurgeStatements {
        /// Deletes the oldest due rows of a table: at most [`ROWS_MAX`], and those with the same time as the
        /// last of them. Returns their number.
        async fn delete_due(&mut self, due: Due) -> Result<usize, DatabaseError> {
            let (table, column, comparison, limit) = due;
            // `$1` is the limit; SQLite numbers it like PostgreSQL.
            let due = format!("{table} WHERE {column} {comparison} $1");
            let last = format!("SELECT {column} FROM {due} ORDER BY {column} LIMIT 1 OFFSET {}", ROWS_MAX - 1);
            let statement = format!("DELETE FROM {due} AND {column} <= coalesce(({last}), $1)");
            Ok(sql_query(statement).bind::<SqlTimestamp, _>(limit).execute(self).await?)
        }

        /// Deletes mails that were sent, failed permanently or were cancelled before `limit`; returns their
        /// number.
        async fn delete_finished_mails(&mut self, limit: TimestampColumn) -> Result<usize, DatabaseError> {
            let ids: Vec<i64> = core_mail_outbox::table
                .filter(core_mail_outbox::next_attempt_at.is_null())
                .filter(core_mail_outbox::sent_at.lt(limit).or(core_mail_outbox::gave_up_at.lt(limit)))
                .select(core_mail_outbox::id)
                .limit(ROWS_MAX)
                .load(self)
                .await?;
            let finished = core_mail_outbox::table.filter(core_mail_outbox::id.eq_any(ids));
            Ok(diesel::delete(finished).execute(self).await?)
        }

        /// Deletes at most [`USERS_MAX`] users that `abandoned_before(then)` selects, and records a copy of
        /// `deletion` for each; returns their number. Locks the users first, for the reason that
        /// [`NeverVerifiedUserStatements::delete_if_never_verified`] states.
        async fn delete_abandoned_users(
            &mut self,
            then: TimestampColumn,
            deletion: &AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<usize, DatabaseError> {
            let ids: Vec<i64> =
                abandoned_before(then).select(core_user::id).limit(USERS_MAX).load(self).await?;
            self.lock_users(&ids).await?;
            let deleted = diesel::delete(abandoned_before(then).filter(core_user::id.eq_any(ids)))
                .returning(core_user::auth_token)
                .get_results(self)
                .await?;
            self.record_deletions(deleted, deletion, recorded).await
        }
    }
}

impl Store {
    /// Deletes rows whose retention period is over at the time of `deletion`, a limited number in one
    /// transaction. Records a copy of `deletion` for each deleted user.
    pub async fn purge(&self, kept: RetentionPeriods, deletion: AuditEvent) -> Result<Purged, DatabaseError> {
        let now = deletion.at;
        let before = |kept| TimestampColumn(now.minus(kept));
        let (unverified, mails) = (before(kept.unverified_users), before(kept.finished_mails));
        let now = TimestampColumn(now);
        // The deletions below have the table order of the cascade of a deleted user, so that the two cannot
        // deadlock.
        let tokens = ("core_mail_token", "expires_at", "<", before(kept.expired_tokens));
        // `<=` if a row at the limit has no effect any more, `<` if it still has one.
        let others = [
            ("core_registration_request", "created_at", "<", before(kept.request_ids)),
            ("core_session", "created_at", "<=", before(kept.sessions)),
            ("core_session", "refreshed_at", "<=", before(kept.idle_sessions)),
            ("core_throttle", "expires_at", "<=", now),
            ("core_known_address", "expires_at", "<=", now),
            ("core_password_attempt", "expires_at", "<=", before(SETTLEMENT_MAX)),
            ("core_audit_event", "at", "<", before(kept.audit_events)),
        ];
        write!(&self.connections, connection, recorded => {
            let users = connection.delete_abandoned_users(unverified, &deletion, recorded).await?;
            let mut rows = vec![connection.delete_due(tokens).await?, connection.delete_finished_mails(mails).await?];
            for due in others {
                rows.push(connection.delete_due(due).await?);
            }
            let expired_keys = core_signing_key::table.filter(core_signing_key::verifies_until.le(now));
            diesel::delete(expired_keys).execute(connection).await?;
            let is_full = |rows: usize, max: i64| i64::try_from(rows).is_ok_and(|rows| rows >= max);
            let has_more = is_full(users, USERS_MAX) || rows.iter().any(|&rows| is_full(rows, ROWS_MAX));
            Ok(Purged { rows: users + rows.iter().sum::<usize>(), users, has_more })
        })
    }
}
