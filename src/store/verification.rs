//! Mailed tokens that prove an address.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    audit::record,
    columns::TimestampColumn,
    connection::write,
    schema::{core_mail_outbox, core_mail_token, core_user},
    users::UserRow,
};
use crate::domain::{
    AuditEvent, Email, MailKind, MailTokenDigest, MailTokenPurpose, Sealed, Timestamp, User,
};

/// A link to be mailed.
#[derive(Debug, Clone)]
pub struct VerificationMail {
    /// What the database keeps of the token for good.
    pub digest: MailTokenDigest,
    /// The token itself, encrypted, until its mail has been sent.
    pub sealed_token: Sealed,
    /// The mail's Message-ID without its angle brackets, the same over all attempts.
    pub message_id: String,
    /// When the link ends.
    pub expires_at: Timestamp,
}

/// What came of following a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The address is proven now; the token is used up.
    Verified(User),
    /// The address was proven before.
    AlreadyVerified,
    /// No such token, or it is expired, void, for another purpose, or for an address that the user has no more.
    Invalid,
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
    pub(super) fn new(user: &User, mail: &VerificationMail, now: Timestamp) -> Self {
        Self {
            user_id: user.id.as_i64(),
            purpose: MailTokenPurpose::VerifyEmail.as_str(),
            email: user.email.as_str().to_owned(),
            digest: mail.digest.as_bytes().to_vec(),
            created_at: TimestampColumn(now),
            expires_at: TimestampColumn(mail.expires_at),
        }
    }
}

impl NewOutboxRow {
    pub(super) fn new(user: &User, mail: &VerificationMail, now: Timestamp) -> Self {
        Self {
            user_id: user.id.as_i64(),
            kind: MailKind::VerifyEmail.as_str(),
            recipient: user.email.as_str().to_owned(),
            sealed_token: Some(mail.sealed_token.as_bytes().to_vec()),
            message_id: mail.message_id.clone(),
            created_at: TimestampColumn(now),
            expires_at: TimestampColumn(mail.expires_at),
            next_attempt_at: Some(TimestampColumn(now)),
            attempts: 0,
        }
    }
}

impl Store {
    /// Uses up the token with one conditional UPDATE and marks its user verified, at the time of the event; the event, about that
    /// user, is written in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; the token is then unused.
    pub async fn verify_email(
        &self,
        token: MailTokenDigest,
        event: AuditEvent,
    ) -> Result<Verification, StoreError> {
        let (digest, now) = (token.as_bytes().to_vec(), event.at);
        write!(&self.connections, connection => {
            // The user's row first, as `replace_verification` and a deletion do: in another order they would deadlock.
            let owner: Option<i64> = core_mail_token::table
                .filter(core_mail_token::digest.eq(digest.clone()))
                .select(core_mail_token::user_id)
                .get_result(connection)
                .await
                .optional()?;
            let Some(owner) = owner else { return Ok(Verification::Invalid) };
            diesel::update(core_user::table.find(owner))
                .set(core_user::is_verified.eq(core_user::is_verified))
                .execute(connection)
                .await?;
            let usable = core_mail_token::table
                .filter(core_mail_token::digest.eq(digest.clone()))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::VerifyEmail.as_str()))
                .filter(core_mail_token::expires_at.gt(TimestampColumn(now)))
                .filter(core_mail_token::used_at.is_null())
                .filter(core_mail_token::voided_at.is_null());
            let used: Option<(i64, String)> = diesel::update(usable)
                .set(core_mail_token::used_at.eq(Some(TimestampColumn(now))))
                .returning((core_mail_token::user_id, core_mail_token::email))
                .get_result(connection)
                .await
                .optional()?;
            if let Some((user, email)) = used {
                let unverified = core_user::table
                    .find(user)
                    .filter(core_user::email.eq(email))
                    .filter(core_user::is_verified.eq(false));
                let verified = diesel::update(unverified)
                    .set((core_user::is_verified.eq(true), core_user::updated_at.eq(TimestampColumn(now))))
                    .returning(UserRow::as_returning())
                    .get_result(connection)
                    .await
                    .optional()?;
                if let Some(user) = verified.map(User::from) {
                    record!(connection, event.about(Some(user.auth_token)));
                    return Ok(Verification::Verified(user));
                }
            }
            let proven: Option<bool> = core_mail_token::table
                .inner_join(core_user::table)
                .filter(core_mail_token::digest.eq(digest))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::VerifyEmail.as_str()))
                .filter(core_mail_token::used_at.is_not_null())
                .filter(core_mail_token::email.eq(core_user::email))
                .select(core_user::is_verified)
                .get_result(connection)
                .await
                .optional()?;
            Ok(if proven == Some(true) { Verification::AlreadyVerified } else { Verification::Invalid })
        })
    }

    /// Gives the unverified user with this email a new link and voids the older ones, sent or not, at the time of the event, which
    /// is written with it; gives the user. Does nothing when there is no such user.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; the older links are then as good as before.
    pub async fn replace_verification(
        &self,
        email: &Email,
        mail: VerificationMail,
        event: AuditEvent,
    ) -> Result<Option<User>, StoreError> {
        let (email, now) = (email.as_str().to_owned(), event.at);
        write!(&self.connections, connection => {
            // An UPDATE that changes nothing locks the row on both engines, so that of two new links one is void.
            let unverified =
                core_user::table.filter(core_user::email.eq(email)).filter(core_user::is_verified.eq(false));
            let user: Option<UserRow> = diesel::update(unverified)
                .set(core_user::is_verified.eq(false))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            let Some(user) = user.map(User::from) else { return Ok(None) };

            let live = core_mail_token::table
                .filter(core_mail_token::user_id.eq(user.id.as_i64()))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::VerifyEmail.as_str()))
                .filter(core_mail_token::used_at.is_null())
                .filter(core_mail_token::voided_at.is_null());
            diesel::update(live)
                .set(core_mail_token::voided_at.eq(Some(TimestampColumn(now))))
                .execute(connection)
                .await?;
            let waiting = core_mail_outbox::table
                .filter(core_mail_outbox::user_id.eq(user.id.as_i64()))
                .filter(core_mail_outbox::kind.eq(MailKind::VerifyEmail.as_str()))
                .filter(core_mail_outbox::next_attempt_at.is_not_null());
            diesel::update(waiting)
                .set((
                    core_mail_outbox::next_attempt_at.eq(None::<TimestampColumn>),
                    core_mail_outbox::sealed_token.eq(None::<Vec<u8>>),
                    core_mail_outbox::gave_up_at.eq(Some(TimestampColumn(now))),
                    core_mail_outbox::last_error.eq(Some("replaced by a newer link")),
                ))
                .execute(connection)
                .await?;
            diesel::insert_into(core_mail_token::table)
                .values(NewMailTokenRow::new(&user, &mail, now))
                .execute(connection)
                .await?;
            diesel::insert_into(core_mail_outbox::table)
                .values(NewOutboxRow::new(&user, &mail, now))
                .execute(connection)
                .await?;
            record!(connection, event.about(Some(user.auth_token)));
            Ok(Some(user))
        })
    }
}
