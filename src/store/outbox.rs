//! The mails that wait to be sent, each with a lease for whoever sends it.
//!
//! `next_attempt_at` says when a mail is due; taking one moves that time to the end of the lease, so that a sender that
//! dies loses nothing and one that wakes up late finds its lease gone: every later statement asks for the lease it knows.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    columns::TimestampColumn,
    connection::write,
    schema::{core_mail_outbox, core_user},
};
use crate::domain::{Email, MailKind, Sealed, Timestamp, Username};

/// The longest cause of a failure that is kept, in characters.
const LAST_ERROR_CHARACTERS_MAX: usize = 500;

/// A mail that the caller has the right to send until its lease ends.
#[derive(Debug, Clone)]
pub struct OutgoingMail {
    /// The row.
    pub id: i64,
    /// Which templates it is made from.
    pub kind: MailKind,
    /// The only address it goes to.
    pub recipient: Email,
    /// Whom it greets.
    pub username: Username,
    /// The token of its link, encrypted; nothing where it has none.
    pub sealed_token: Option<Sealed>,
    /// Its Message-ID without the angle brackets, the same over all attempts.
    pub message_id: String,
    /// When it was decided on: its Date.
    pub created_at: Timestamp,
    /// When its link ends; no attempt after it.
    pub expires_at: Timestamp,
    /// How many attempts there were, this one included.
    pub attempts: u32,
    /// When others may take it.
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

/// What a sender found out about its mail.
enum Outcome {
    Sent(Timestamp),
    RetryAt(Timestamp, String),
    GaveUp(Timestamp, String),
}

impl Store {
    /// Takes the mail that has been due for longest, if any is due at `now`; it is the caller's until `lease_until`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a row that a newer release wrote; it comes again after the lease.
    pub async fn claim_due_mail(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<OutgoingMail>, StoreError> {
        let claimed: Option<(OutboxRow, String, String)> = write!(&self.connections, connection => {
            let due: Option<(i64, Option<TimestampColumn>, i64)> = core_mail_outbox::table
                .filter(core_mail_outbox::next_attempt_at.le(TimestampColumn(now)))
                .order(core_mail_outbox::next_attempt_at)
                .limit(1)
                .select((core_mail_outbox::id, core_mail_outbox::next_attempt_at, core_mail_outbox::user_id))
                .get_result(connection)
                .await
                .optional()?;
            let Some((id, due_at, user)) = due else { return Ok(None) };
            // Another instance may have been faster: then its lease stands here.
            let unclaimed = core_mail_outbox::table.find(id).filter(core_mail_outbox::next_attempt_at.eq(due_at));
            let row: Option<OutboxRow> = diesel::update(unclaimed)
                .set((
                    core_mail_outbox::next_attempt_at.eq(Some(TimestampColumn(lease_until))),
                    core_mail_outbox::attempts.eq(core_mail_outbox::attempts + 1),
                ))
                .returning(OutboxRow::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let (username, key): (String, String) = core_user::table
                .find(user)
                .select((core_user::username, core_user::username_key))
                .get_result(connection)
                .await?;
            Ok(Some((row, username, key)))
        })?;
        claimed
            .map(|(row, name, key)| outgoing(row, Username::from_stored(name, key), lease_until))
            .transpose()
    }

    /// Notes that the mail was taken by the next server, and erases its token; `false` when the lease was lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer: the mail will be sent once more, with the same Message-ID.
    pub async fn mark_mail_sent(&self, mail: &OutgoingMail, now: Timestamp) -> Result<bool, StoreError> {
        self.finish_attempt(mail, Outcome::Sent(now)).await
    }

    /// Notes that the mail is to be tried again at `at`; `false` when the lease was lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer: the mail comes again after its lease.
    pub async fn retry_mail(
        &self,
        mail: &OutgoingMail,
        at: Timestamp,
        cause: String,
    ) -> Result<bool, StoreError> {
        self.finish_attempt(mail, Outcome::RetryAt(at, cause)).await
    }

    /// Notes that the mail will not be tried again, and erases its token; `false` when the lease was lost.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer: the mail comes again after its lease.
    pub async fn give_up_mail(
        &self,
        mail: &OutgoingMail,
        now: Timestamp,
        cause: String,
    ) -> Result<bool, StoreError> {
        self.finish_attempt(mail, Outcome::GaveUp(now, cause)).await
    }

    async fn finish_attempt(&self, mail: &OutgoingMail, outcome: Outcome) -> Result<bool, StoreError> {
        let (id, lease) = (mail.id, TimestampColumn(mail.lease_until));
        let (again_at, sent_at, gave_up_at, cause) = match outcome {
            Outcome::Sent(now) => (None, Some(now), None, None),
            Outcome::RetryAt(at, cause) => (Some(at), None, None, Some(cause)),
            Outcome::GaveUp(now, cause) => (None, None, Some(now), Some(cause)),
        };
        let token = mail.sealed_token.as_ref().filter(|_| again_at.is_some());
        let token = token.map(|token| token.as_bytes().to_vec());
        let cause: Option<String> =
            cause.map(|cause| cause.chars().take(LAST_ERROR_CHARACTERS_MAX).collect());
        write!(&self.connections, connection => {
            let leased = core_mail_outbox::table.find(id).filter(core_mail_outbox::next_attempt_at.eq(lease));
            let updated = diesel::update(leased)
                .set((
                    core_mail_outbox::next_attempt_at.eq(again_at.map(TimestampColumn)),
                    core_mail_outbox::sent_at.eq(sent_at.map(TimestampColumn)),
                    core_mail_outbox::gave_up_at.eq(gave_up_at.map(TimestampColumn)),
                    core_mail_outbox::sealed_token.eq(token),
                    core_mail_outbox::last_error.eq(cause),
                ))
                .execute(connection)
                .await?;
            Ok(updated > 0)
        })
    }
}

fn outgoing(row: OutboxRow, username: Username, lease_until: Timestamp) -> Result<OutgoingMail, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "core_mail_outbox", column };
    let kind = MailKind::parse(&row.kind).map_err(|_| corrupt("kind"))?;
    if kind.purpose().is_some() != row.sealed_token.is_some() {
        return Err(corrupt("sealed_token"));
    }
    Ok(OutgoingMail {
        id: row.id,
        kind,
        recipient: Email::from_stored(row.recipient),
        username,
        sealed_token: row.sealed_token.map(Sealed::from_bytes),
        message_id: row.message_id,
        created_at: row.created_at.0,
        expires_at: row.expires_at.0,
        attempts: u32::try_from(row.attempts).map_err(|_| corrupt("attempts"))?,
        lease_until,
    })
}
