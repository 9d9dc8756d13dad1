//! Forgetting what is of no more use, so that no table but `core_user` grows for ever.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl,
    dsl::{exists, not},
};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    columns::TimestampColumn,
    connection::write,
    schema::{
        core_audit_event, core_known_address, core_mail_outbox, core_mail_token, core_registration_request,
        core_session, core_signing_key, core_throttle, core_user,
    },
    users::{forget_users, is_unproven},
};
use crate::domain::AuditEvent;

/// Some this many rows of a table go in one transaction: the writer is not held for longer than some milliseconds.
const ROWS_MAX: i64 = 1_000;

/// So many users, each of whom takes other rows with them and leaves an event.
const USERS_MAX: i64 = 100;

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Mailed tokens, after they have expired: so long a used link says "verified already".
    pub expired_tokens: Duration,
    /// Mails, after they were sent or given up.
    pub finished_mails: Duration,
    /// Request ids of registrations, after the registration.
    pub request_ids: Duration,
    /// Users who have never proven their address and whom no operator keeps out, after they registered and were last mailed a link.
    pub unverified_users: Duration,
    /// Sessions, after they began.
    pub sessions: Duration,
    /// Sessions, after they were refreshed last.
    pub idle_sessions: Duration,
    /// Audit events.
    pub audit_events: Duration,
}

/// How many rows were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// In all tables together.
    pub rows: usize,
    /// Whether a table had more of them than one transaction deletes: call again.
    pub is_more: bool,
}

/// Deletes the oldest rows by the time in a column, as long as it compares so: some `ROWS_MAX` of them, and those of the same
/// moment as the last. Gives how many.
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

/// Users who have not proven their address, and never did, since then; whom no operator keeps out and nobody has mailed a link since.
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
    /// Deletes some of what is older than `kept` allows at the time of the event, which is written of each user among it; gives those
    /// events too.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing was deleted.
    pub async fn purge(&self, kept: Kept, gone: AuditEvent) -> Result<(Purged, Vec<AuditEvent>), StoreError> {
        let now = gone.at;
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
            let gone = forget_users!(
                connection,
                abandoned_before!(unverified).filter(core_user::id.eq_any(candidates.clone())),
                &gone
            );
            let rows = [
                gone.len(),
                // In the order in which the deletion of a user takes their rows with it.
                delete_oldest!(connection, core_mail_token.expires_at lt tokens),
                diesel::delete(old_mails).execute(connection).await?,
                delete_oldest!(connection, core_registration_request.created_at lt requests),
                delete_oldest!(connection, core_session.created_at le sessions),
                delete_oldest!(connection, core_session.refreshed_at le idle_sessions),
                delete_oldest!(connection, core_throttle.expires_at le now),
                delete_oldest!(connection, core_known_address.expires_at le now),
                delete_oldest!(connection, core_audit_event.at lt events),
            ];
            let ended_keys = core_signing_key::table.filter(core_signing_key::verifies_until.le(now));
            diesel::delete(ended_keys).execute(connection).await?;
            let is_full = |rows: usize, max: i64| i64::try_from(rows).is_ok_and(|rows| rows >= max);
            let is_more = is_full(gone.len(), USERS_MAX) || rows.iter().any(|&rows| is_full(rows, ROWS_MAX));
            Ok((Purged { rows: rows.iter().sum(), is_more }, gone))
        })
    }
}
