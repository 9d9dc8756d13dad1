//! Deletes rows that are no longer needed, so that no table except `core_user` grows without limit.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl,
    dsl::{exists, not},
};
use diesel_async::RunQueryDsl;

use super::users::{forget_users, is_unproven};
use crate::domain::AuditEvent;
use crate::store::{
    Store, StoreError,
    columns::TimestampColumn,
    connection::write,
    schema::{
        core_audit_event, core_known_address, core_mail_outbox, core_mail_token, core_registration_request,
        core_session, core_signing_key, core_throttle, core_user,
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
pub struct Kept {
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
    /// True if a table reached the limit of one transaction, so more rows may be due: call again.
    pub has_more: bool,
}

/// Deletes the rows whose `$column` compares with `$limit` as given, oldest first: at most `ROWS_MAX`, and
/// those with the same time as the last of them. Returns the number of deleted rows.
macro_rules! delete_oldest {
    ($connection:expr, $table:ident.$column:ident $compare:ident $limit:expr) => {{
        let last: Option<TimestampColumn> = $table::table
            .filter($table::$column.$compare($limit))
            .order($table::$column)
            .select($table::$column)
            .offset(ROWS_MAX - 1)
            .first($connection)
            .await
            .optional()?;
        let old = $table::table.filter($table::$column.$compare($limit));
        match last {
            Some(last) => diesel::delete(old.filter($table::$column.le(last))).execute($connection).await?,
            None => diesel::delete(old).execute($connection).await?,
        }
    }};
}

/// Selects the users who registered before `$then`, never verified their email, are not disabled, were not
/// imported, and have no link created at `$then` or later.
macro_rules! abandoned_before {
    ($then:expr) => {{
        let recent_link = core_mail_token::table
            .filter(core_mail_token::user_id.eq(core_user::id))
            .filter(core_mail_token::created_at.ge($then));
        core_user::table
            .filter(is_unproven!())
            .filter(core_user::created_at.lt($then))
            .filter(not(exists(recent_link)))
    }};
}

impl Store {
    /// Deletes rows whose retention period is over at the time of `deletion`, a limited number in one
    /// transaction. Records a copy of `deletion` for each deleted user, and returns these events too.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing was deleted.
    pub async fn purge(
        &self,
        kept: Kept,
        deletion: AuditEvent,
    ) -> Result<(Purged, Vec<AuditEvent>), StoreError> {
        let now = deletion.at;
        let before = |kept| TimestampColumn(now.minus(kept));
        let (tokens, mails) = (before(kept.expired_tokens), before(kept.finished_mails));
        let (requests, events) = (before(kept.request_ids), before(kept.audit_events));
        let unverified = before(kept.unverified_users);
        let (sessions, idle_sessions) = (before(kept.sessions), before(kept.idle_sessions));
        let now = TimestampColumn(now);
        write!(&self.connections, connection => {
            let old_mails: Vec<i64> = core_mail_outbox::table
                .filter(core_mail_outbox::next_attempt_at.is_null())
                .filter(core_mail_outbox::sent_at.lt(mails).or(core_mail_outbox::gave_up_at.lt(mails)))
                .select(core_mail_outbox::id)
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let old_mails = core_mail_outbox::table.filter(core_mail_outbox::id.eq_any(old_mails));
            let candidates: Vec<i64> = abandoned_before!(unverified)
                .select(core_user::id)
                .limit(USERS_MAX)
                .load(connection)
                .await?;
            let deleted = forget_users!(
                connection,
                abandoned_before!(unverified).filter(core_user::id.eq_any(candidates.clone())),
                &deletion
            );
            let rows = [
                deleted.len(),
                // The same table order as the cascade of a deleted user, so that the two cannot deadlock.
                delete_oldest!(connection, core_mail_token.expires_at lt tokens),
                diesel::delete(old_mails).execute(connection).await?,
                delete_oldest!(connection, core_registration_request.created_at lt requests),
                delete_oldest!(connection, core_session.created_at le sessions),
                delete_oldest!(connection, core_session.refreshed_at le idle_sessions),
                delete_oldest!(connection, core_throttle.expires_at le now),
                delete_oldest!(connection, core_known_address.expires_at le now),
                delete_oldest!(connection, core_audit_event.at lt events),
            ];
            let expired_keys = core_signing_key::table.filter(core_signing_key::verifies_until.le(now));
            diesel::delete(expired_keys).execute(connection).await?;
            let is_full = |rows: usize, max: i64| i64::try_from(rows).is_ok_and(|rows| rows >= max);
            let has_more =
                is_full(deleted.len(), USERS_MAX) || rows.iter().any(|&rows| is_full(rows, ROWS_MAX));
            Ok((Purged { rows: rows.iter().sum(), has_more }, deleted))
        })
    }
}
