//! Mails to enqueue, with the link that each contains and the change that it announces.

use diesel::Insertable;

use crate::{
    database::columns::TimestampColumn,
    domain::{AuditEvent, Email, MailKind, MailTokenDigest, Sealed, Timestamp, User, UserId},
    store::schema::core_mail_outbox,
};

/// A mail to enqueue.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// The kind of mail. It determines the purpose of the link.
    pub kind: MailKind,
    /// The only address that the mail is sent to, and the address that its link is for.
    pub recipient: Email,
    /// The digest of the link's token; `None` for a mail without a link. The token itself is never stored in
    /// clear.
    pub digest: Option<MailTokenDigest>,
    /// The sender of the mail.
    pub delivery: Delivery,
    /// The time after which the service does not try to deliver the mail. A link expires at this time.
    pub expires_at: Timestamp,
}

/// A change of an account, with the notice about it. The notice is enqueued in the transaction of the change,
/// if its recipient is the user's verified email.
#[derive(Debug, Clone)]
pub struct NoticedEvent {
    /// The audit event of the change.
    pub event: AuditEvent,
    /// The notice, if the change is announced.
    pub notice: Option<NewMail>,
}

impl NoticedEvent {
    /// Returns the notice if it may be mailed to this user.
    pub(super) fn notice_to(&self, user: &User) -> Option<&NewMail> {
        self.notice.as_ref().filter(|notice| user.is_verified && notice.recipient == user.email)
    }
}

impl From<AuditEvent> for NoticedEvent {
    fn from(event: AuditEvent) -> Self {
        Self { event, notice: None }
    }
}

/// The sender of a mail.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// This service, from its outbox.
    Service {
        /// The Message-ID without the angle brackets; the same for all attempts.
        message_id: String,
        /// The token of the link, encrypted; erased when the mail has been sent or will not be tried again.
        sealed_token: Option<Sealed>,
    },
    /// The calling service, which received the token in the response. The outbox gets no row.
    Caller,
}

#[derive(Insertable)]
#[diesel(table_name = core_mail_outbox)]
pub(super) struct NewOutboxRow {
    user_id: Option<i64>,
    kind: &'static str,
    recipient: String,
    sealed_token: Option<Vec<u8>>,
    message_id: String,
    created_at: TimestampColumn,
    expires_at: TimestampColumn,
    next_attempt_at: Option<TimestampColumn>,
    attempts: i32,
}

impl NewOutboxRow {
    /// Returns the outbox row, or `None` if the calling service sends the mail itself. A row is deleted with
    /// its user, so the notice of a deletion has no user.
    pub(super) fn of(user: Option<UserId>, mail: &NewMail, now: Timestamp) -> Option<Self> {
        let Delivery::Service { message_id, sealed_token } = &mail.delivery else { return None };
        Some(Self {
            user_id: user.map(UserId::as_i64),
            kind: mail.kind.as_str(),
            recipient: mail.recipient.as_str().to_owned(),
            sealed_token: sealed_token.as_ref().map(|sealed| sealed.as_bytes().to_vec()),
            message_id: message_id.clone(),
            created_at: TimestampColumn(now),
            expires_at: TimestampColumn(mail.expires_at),
            next_attempt_at: Some(TimestampColumn(now)),
            attempts: 0,
        })
    }
}
