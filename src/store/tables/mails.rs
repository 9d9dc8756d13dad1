//! Enqueues mails, and writes the tokens of their links, in the transaction of the change that causes the
//! mail.

use diesel::Insertable;

use crate::domain::{Email, MailKind, MailTokenDigest, Sealed, Timestamp, UserId};
use crate::store::{
    columns::TimestampColumn,
    schema::{core_mail_outbox, core_mail_token},
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
    /// The time when the link expires. The service does not try to deliver the mail after this time.
    pub expires_at: Timestamp,
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
#[diesel(table_name = core_mail_token)]
pub(super) struct NewMailTokenRow {
    user_id: i64,
    purpose: &'static str,
    email: String,
    digest: Vec<u8>,
    created_at: TimestampColumn,
    expires_at: TimestampColumn,
}

#[derive(Insertable)]
#[diesel(table_name = core_mail_outbox)]
pub(super) struct NewOutboxRow {
    user_id: i64,
    kind: &'static str,
    recipient: String,
    sealed_token: Option<Vec<u8>>,
    message_id: String,
    created_at: TimestampColumn,
    expires_at: TimestampColumn,
    next_attempt_at: Option<TimestampColumn>,
    attempts: i32,
}

impl NewMailTokenRow {
    /// Returns the row of the link's token, or `None` for a mail without a link.
    pub(super) fn of(user: UserId, mail: &NewMail, now: Timestamp) -> Option<Self> {
        let (purpose, digest) = mail.kind.purpose().zip(mail.digest)?;
        Some(Self {
            user_id: user.as_i64(),
            purpose: purpose.as_str(),
            email: mail.recipient.as_str().to_owned(),
            digest: digest.as_bytes().to_vec(),
            created_at: TimestampColumn(now),
            expires_at: TimestampColumn(mail.expires_at),
        })
    }
}

impl NewOutboxRow {
    /// Returns the outbox row, or `None` if the calling service sends the mail itself.
    pub(super) fn of(user: UserId, mail: &NewMail, now: Timestamp) -> Option<Self> {
        let Delivery::Service { message_id, sealed_token } = &mail.delivery else { return None };
        Some(Self {
            user_id: user.as_i64(),
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

/// Inserts the token of a mail's link, and enqueues the mail unless the calling service sends it itself.
macro_rules! post {
    ($connection:expr, $user:expr, $mail:expr, $now:expr) => {{
        use $crate::store::{
            schema::{core_mail_outbox, core_mail_token},
            tables::mails::{NewMailTokenRow, NewOutboxRow},
        };
        let (user, mail, now): ($crate::domain::UserId, &$crate::store::NewMail, _) = ($user, $mail, $now);
        if let Some(token) = NewMailTokenRow::of(user, mail, now) {
            diesel::insert_into(core_mail_token::table).values(token).execute($connection).await?;
        }
        if let Some(mail) = NewOutboxRow::of(user, mail, now) {
            diesel::insert_into(core_mail_outbox::table).values(mail).execute($connection).await?;
        }
    }};
}
pub(super) use post;

/// Voids a user's unused links for one purpose, whether their mails were sent or not, and cancels the mails
/// that are still waiting.
macro_rules! void_links {
    ($connection:expr, $user:expr, $purpose:expr, $now:expr) => {{
        use $crate::{
            domain::{MailKind, MailTokenPurpose, Timestamp, UserId},
            store::{
                columns::TimestampColumn,
                schema::{core_mail_outbox, core_mail_token},
            },
        };
        let (user, purpose, now): (UserId, MailTokenPurpose, Timestamp) = ($user, $purpose, $now);
        let live = core_mail_token::table
            .filter(core_mail_token::user_id.eq(user.as_i64()))
            .filter(core_mail_token::purpose.eq(purpose.as_str()))
            .filter(core_mail_token::used_at.is_null())
            .filter(core_mail_token::voided_at.is_null());
        diesel::update(live)
            .set(core_mail_token::voided_at.eq(Some(TimestampColumn(now))))
            .execute($connection)
            .await?;
        let waiting = core_mail_outbox::table
            .filter(core_mail_outbox::user_id.eq(user.as_i64()))
            .filter(core_mail_outbox::kind.eq(MailKind::of_purpose(purpose).as_str()))
            .filter(core_mail_outbox::next_attempt_at.is_not_null());
        diesel::update(waiting)
            .set((
                core_mail_outbox::next_attempt_at.eq(None::<TimestampColumn>),
                core_mail_outbox::sealed_token.eq(None::<Vec<u8>>),
                core_mail_outbox::gave_up_at.eq(Some(TimestampColumn(now))),
                core_mail_outbox::last_error.eq(Some("its link was voided")),
            ))
            .execute($connection)
            .await?;
    }};
}
pub(super) use void_links;

/// Uses up a user's link for this purpose. Returns the address that the link was mailed to, or `None` if the
/// link is unknown, used, void, expired, or for another user or purpose.
macro_rules! use_link {
    ($connection:expr, $user:expr, $digest:expr, $purpose:expr, $now:expr) => {{
        use $crate::{
            domain::{Email, MailTokenDigest, MailTokenPurpose, Timestamp, UserId},
            store::{columns::TimestampColumn, schema::core_mail_token},
        };
        let (user, digest): (UserId, MailTokenDigest) = ($user, $digest);
        let (purpose, now): (MailTokenPurpose, Timestamp) = ($purpose, $now);
        let usable = core_mail_token::table
            .filter(core_mail_token::digest.eq(digest.as_bytes().to_vec()))
            .filter(core_mail_token::user_id.eq(user.as_i64()))
            .filter(core_mail_token::purpose.eq(purpose.as_str()))
            .filter(core_mail_token::expires_at.gt(TimestampColumn(now)))
            .filter(core_mail_token::used_at.is_null())
            .filter(core_mail_token::voided_at.is_null());
        let mailed_to: Option<String> = diesel::update(usable)
            .set(core_mail_token::used_at.eq(Some(TimestampColumn(now))))
            .returning(core_mail_token::email)
            .get_result($connection)
            .await
            .optional()?;
        mailed_to.map(Email::from_stored)
    }};
}
pub(super) use use_link;

/// Locks the owner of a link. Every change locks the user's row before the rows that depend on it; in another
/// order, two concurrent changes of one user could deadlock. Returns the user, or `None` if the token is
/// unknown or the user is disabled.
macro_rules! lock_link_owner {
    ($connection:expr, $digest:expr) => {{
        use $crate::{
            domain::{MailTokenDigest, UserId},
            store::{
                schema::core_mail_token,
                tables::disabled_users::{is_disabled, lock_user},
            },
        };
        let digest: MailTokenDigest = $digest;
        let owner: Option<i64> = core_mail_token::table
            .filter(core_mail_token::digest.eq(digest.as_bytes().to_vec()))
            .select(core_mail_token::user_id)
            .get_result($connection)
            .await
            .optional()?;
        let user = match owner {
            Some(owner) => lock_user!($connection, UserId::from_i64(owner)),
            None => None,
        };
        match user {
            Some(user) => {
                let is_disabled: bool =
                    diesel::select(is_disabled!(user.id.as_i64())).get_result::<bool>($connection).await?;
                (!is_disabled).then_some(user)
            }
            None => None,
        }
    }};
}
pub(super) use lock_link_owner;
