//! The queue of mails to send. A worker leases a mail before it sends it.
//!
//! `next_attempt_at` is the time when a mail is due. Claiming a mail moves that time to the end of the lease.
//! If a worker dies, the mail becomes due again when the lease ends. If a worker resumes after its lease
//! ended, its later statements change nothing, because each one requires that `next_attempt_at` is still its
//! own lease.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::users::UserRow;
use crate::{
    database::{DatabaseError, columns::TimestampColumn, read, statements, write},
    domain::{Email, MailKind, Sealed, Timestamp, User, Username},
    store::{
        Store,
        schema::{core_mail_outbox, core_user},
    },
};

/// Maximum length of a stored failure cause, in characters.
const LAST_ERROR_CHARACTERS_MAX: usize = 500;

/// A leased mail. Until the lease ends, only the worker that claimed it may send it.
#[derive(Debug, Clone)]
pub struct OutgoingMail {
    /// The id of the row.
    pub id: i64,
    /// The kind of mail, which selects its templates.
    pub kind: MailKind,
    /// The only address that the mail is sent to.
    pub recipient: Email,
    /// The username in the salutation. `None` unless the recipient is the verified email of the user, since
    /// another person may have chosen the name. `None` also if the name contains a web address.
    pub username: Option<Username>,
    /// The token of the link, encrypted; `None` for a mail without a link.
    pub sealed_token: Option<Sealed>,
    /// The Message-ID without the angle brackets; the same for all attempts.
    pub message_id: String,
    /// The time when the mail was enqueued, which becomes its Date header.
    pub created_at: Timestamp,
    /// The time after which no attempt may start. A link expires at this time.
    pub expires_at: Timestamp,
    /// Number of delivery attempts, including this one.
    pub attempts: u32,
    /// The time when the lease ends and another worker may claim the mail.
    pub lease_until: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = core_mail_outbox)]
struct OutboxRow {
    id: i64,
    kind: String,
    recipient: String,
    sealed_token: Option<Vec<u8>>,
    message_id: String,
    created_at: TimestampColumn,
    expires_at: TimestampColumn,
    attempts: i32,
}

/// A mail that can be leased.
#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = core_mail_outbox)]
struct DueRow {
    id: i64,
    next_attempt_at: Option<TimestampColumn>,
    user_id: Option<i64>,
}

/// A leased mail, with its user if it has one.
type ClaimedRow = (OutboxRow, Option<UserRow>);

statements! {
    /// Statements on the outbox.
    trait OutboxStatements {
        /// Leases a mail until `lease_until`. Returns `None` if another instance has claimed it first.
        async fn lease_mail(
            &mut self,
            due: DueRow,
            lease_until: Timestamp,
        ) -> Result<Option<ClaimedRow>, DatabaseError> {
            // If another instance has claimed the mail, `next_attempt_at` is the end of that lease and no
            // longer matches.
            let unclaimed = core_mail_outbox::table
                .find(due.id)
                .filter(core_mail_outbox::next_attempt_at.eq(due.next_attempt_at));
            let row: Option<OutboxRow> = diesel::update(unclaimed)
                .set((
                    core_mail_outbox::next_attempt_at.eq(Some(TimestampColumn(lease_until))),
                    core_mail_outbox::attempts.eq(core_mail_outbox::attempts + 1),
                ))
                .returning(OutboxRow::as_returning())
                .get_result(self)
                .await
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let Some(user) = due.user_id else { return Ok(Some((row, None))) };
            let user = core_user::table.find(user).select(UserRow::as_select());
            Ok(Some((row, Some(user.get_result(self).await?))))
        }
    }
}

/// The result of a delivery attempt.
enum AttemptResult {
    Sent(Timestamp),
    RetryAt(Timestamp, String),
    Failed(Timestamp, String),
}

/// The mails that wait to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailBacklog {
    /// Number of mails.
    pub waiting: u64,
    /// The time when the oldest of them was enqueued.
    pub oldest: Option<Timestamp>,
}

impl Store {
    /// Returns how many mails wait to be sent, and since when.
    ///
    /// # Errors
    /// [`DatabaseError`] if the database does not answer.
    pub async fn mail_backlog(&self) -> Result<MailBacklog, DatabaseError> {
        let (waiting, oldest): (i64, Option<TimestampColumn>) = read!(&self.connections, connection => {
            let waits = core_mail_outbox::next_attempt_at.is_not_null();
            let waiting = core_mail_outbox::table.filter(waits).count().get_result(connection).await?;
            let oldest = core_mail_outbox::table
                .filter(waits)
                .order(core_mail_outbox::created_at)
                .select(core_mail_outbox::created_at)
                .first(connection)
                .await
                .optional()?;
            Ok((waiting, oldest))
        })?;
        Ok(MailBacklog { waiting: waiting.unsigned_abs(), oldest: oldest.map(|TimestampColumn(at)| at) })
    }

    /// Leases the mail that has been due for the longest time, until `lease_until`. Returns `None` if no mail
    /// is due at `now`, or if another instance claims that mail at the same moment.
    ///
    /// # Errors
    /// [`DatabaseError::Corrupt`] if this release cannot read the row, for example because a newer release
    /// wrote it; the mail becomes due again when the lease ends.
    pub async fn claim_due_mail(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<OutgoingMail>, DatabaseError> {
        let claimed = write!(&self.connections, connection => {
            let due = core_mail_outbox::table.filter(core_mail_outbox::next_attempt_at.le(TimestampColumn(now)));
            let due: Option<DueRow> = due
                .order(core_mail_outbox::next_attempt_at)
                .limit(1)
                .select(DueRow::as_select())
                .get_result(connection)
                .await
                .optional()?;
            let Some(due) = due else { return Ok(None) };
            connection.lease_mail(due, lease_until).await
        })?;
        claimed.map(|claimed| outgoing_mail(claimed, lease_until)).transpose()
    }

    /// Leases a mail that would be due only after `latest`. With a correct clock and the present settings no
    /// mail is scheduled that late, so a clock was ahead or a setting was greater when the mail was enqueued
    /// or retried. To be called when no mail is due.
    ///
    /// # Errors
    /// Like [`Store::claim_due_mail`].
    pub async fn claim_misscheduled_mail(
        &self,
        latest: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<OutgoingMail>, DatabaseError> {
        let after = core_mail_outbox::next_attempt_at.gt(TimestampColumn(latest));
        // Checked with a read: mostly there is no such mail.
        let due: Option<DueRow> = read!(&self.connections, connection => {
            let due = core_mail_outbox::table.filter(after).order(core_mail_outbox::next_attempt_at);
            Ok(due.limit(1).select(DueRow::as_select()).get_result(connection).await.optional()?)
        })?;
        let Some(due) = due else { return Ok(None) };
        let claimed =
            write!(&self.connections, connection => { connection.lease_mail(due, lease_until).await })?;
        claimed.map(|claimed| outgoing_mail(claimed, lease_until)).transpose()
    }

    /// Records that the next mail server accepted the mail, and erases its token. Returns false if the lease
    /// was lost.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer: the mail will be sent once more, with the same
    /// Message-ID.
    pub async fn mark_mail_sent(&self, mail: &OutgoingMail, now: Timestamp) -> Result<bool, DatabaseError> {
        self.finish_attempt(mail, AttemptResult::Sent(now)).await
    }

    /// Schedules the next attempt at `at` and records the cause of the failure. Returns false if the lease
    /// was lost.
    pub async fn retry_mail(
        &self,
        mail: &OutgoingMail,
        at: Timestamp,
        cause: String,
    ) -> Result<bool, DatabaseError> {
        self.finish_attempt(mail, AttemptResult::RetryAt(at, cause)).await
    }

    /// Records that delivery failed permanently, with the cause, and erases the token. Returns false if the
    /// lease was lost.
    pub async fn mark_mail_failed(
        &self,
        mail: &OutgoingMail,
        now: Timestamp,
        cause: String,
    ) -> Result<bool, DatabaseError> {
        self.finish_attempt(mail, AttemptResult::Failed(now, cause)).await
    }

    /// Records the result of a delivery attempt. Returns false if the lease was lost.
    async fn finish_attempt(
        &self,
        mail: &OutgoingMail,
        outcome: AttemptResult,
    ) -> Result<bool, DatabaseError> {
        let (id, lease) = (mail.id, TimestampColumn(mail.lease_until));
        let (retry_at, sent_at, gave_up_at, cause) = match outcome {
            AttemptResult::Sent(now) => (None, Some(now), None, None),
            AttemptResult::RetryAt(at, cause) => (Some(at), None, None, Some(cause)),
            AttemptResult::Failed(now, cause) => (None, None, Some(now), Some(cause)),
        };
        // A mail that is retried keeps its token, which another process may have encrypted again meanwhile.
        let erased = retry_at.is_none().then(|| core_mail_outbox::sealed_token.eq(None::<Vec<u8>>));
        let cause: Option<String> =
            cause.map(|cause| cause.chars().take(LAST_ERROR_CHARACTERS_MAX).collect());
        write!(&self.connections, connection => {
            let leased = core_mail_outbox::table.find(id).filter(core_mail_outbox::next_attempt_at.eq(lease));
            let updated = diesel::update(leased)
                .set((
                    core_mail_outbox::next_attempt_at.eq(retry_at.map(TimestampColumn)),
                    core_mail_outbox::sent_at.eq(sent_at.map(TimestampColumn)),
                    core_mail_outbox::gave_up_at.eq(gave_up_at.map(TimestampColumn)),
                    erased,
                    core_mail_outbox::last_error.eq(cause),
                ))
                .execute(connection)
                .await?;
            // A mail without a user is the notice of a deletion. Its row is deleted once it is finished, so
            // that nothing about a deleted user remains. All other rows stay for `mail.keep-finished`.
            let without_user = core_mail_outbox::table
                .find(id)
                .filter(core_mail_outbox::user_id.is_null())
                .filter(core_mail_outbox::next_attempt_at.is_null());
            diesel::delete(without_user).execute(connection).await?;
            Ok(updated > 0)
        })
    }
}

/// Converts a leased row.
fn outgoing_mail((row, user): ClaimedRow, lease_until: Timestamp) -> Result<OutgoingMail, DatabaseError> {
    let corrupt = |column| DatabaseError::Corrupt { table: "core_mail_outbox", column };
    let kind = MailKind::parse(&row.kind).map_err(|_| corrupt("kind"))?;
    if kind.purpose().is_some() != row.sealed_token.is_some() {
        return Err(corrupt("sealed_token"));
    }
    Ok(OutgoingMail {
        id: row.id,
        kind,
        username: user.and_then(|user| name_for(&row.recipient, user.into())),
        recipient: Email::from_stored(row.recipient),
        sealed_token: row.sealed_token.map(Sealed::from_bytes),
        message_id: row.message_id,
        created_at: row.created_at.0,
        expires_at: row.expires_at.0,
        attempts: u32::try_from(row.attempts).map_err(|_| corrupt("attempts"))?,
        lease_until,
    })
}

/// Returns the name that a mail to this recipient may contain.
fn name_for(recipient: &str, user: User) -> Option<Username> {
    let may_appear = user.is_verified && user.email.as_str() == recipient && !user.username.holds_link();
    may_appear.then_some(user.username)
}
