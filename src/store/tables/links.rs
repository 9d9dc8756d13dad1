//! Verification of an email with a mailed link, and creation of new links.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    audit::record,
    disabled_users::{is_disabled, lock_user},
    mails::{NewMail, lock_link_owner, post, use_link, void_links},
    users::UserRow,
};
use crate::domain::{AuditEvent, AuthToken, Email, MailTokenDigest, MailTokenPurpose, User, UserId};
use crate::store::{
    Store, StoreError,
    columns::{TimestampColumn, UuidColumn},
    connection::{read, write},
    schema::{core_imported_user, core_mail_token, core_user},
};

/// The result of following a verification link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The email is now verified, and the token is used up.
    Verified(User),
    /// The email was already verified.
    AlreadyVerified,
    /// The token is unknown, expired, void, for another purpose, or for an address that is no longer the
    /// user's email; or the user is disabled.
    Invalid,
}

impl Store {
    /// Uses up the token with one conditional UPDATE and marks its user as verified, at the time of the
    /// event. The event is recorded in the same transaction, with this user.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; the token is then unused.
    pub async fn verify_email(
        &self,
        token: MailTokenDigest,
        event: AuditEvent,
    ) -> Result<Verification, StoreError> {
        let now = event.at;
        let digest = core_mail_token::digest.eq(token.as_bytes().to_vec());
        // Checked with a read, so that a made-up token does not cost a write transaction.
        let is_known: bool = read!(&self.connections, connection => {
            let known = diesel::dsl::exists(core_mail_token::table.filter(digest));
            Ok(diesel::select(known).get_result(connection).await?)
        })?;
        if !is_known {
            return Ok(Verification::Invalid);
        }
        write!(&self.connections, connection => {
            let Some(user) = lock_link_owner!(connection, token) else { return Ok(Verification::Invalid) };
            let mailed_to = use_link!(connection, user.id, token, MailTokenPurpose::VerifyEmail, now);
            if mailed_to.as_ref() == Some(&user.email) && !user.is_verified {
                let verified: UserRow = diesel::update(core_user::table.find(user.id.as_i64()))
                    .set((core_user::is_verified.eq(true), core_user::updated_at.eq(TimestampColumn(now))))
                    .returning(UserRow::as_returning())
                    .get_result(connection)
                    .await?;
                record!(connection, event.about(Some(user.auth_token)));
                return Ok(Verification::Verified(verified.into()));
            }
            let is_verified: Option<bool> = core_mail_token::table
                .inner_join(core_user::table)
                .filter(core_mail_token::digest.eq(token.as_bytes().to_vec()))
                .filter(core_mail_token::purpose.eq(MailTokenPurpose::VerifyEmail.as_str()))
                .filter(core_mail_token::used_at.is_not_null())
                .filter(core_mail_token::email.eq(core_user::email))
                .select(core_user::is_verified)
                .get_result(connection)
                .await
                .optional()?;
            Ok(if is_verified == Some(true) { Verification::AlreadyVerified } else { Verification::Invalid })
        })
    }

    /// Marks an imported user with this `auth_token` as verified, at the time of the event, and records the
    /// event. The user must be unchanged since the import and not disabled.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn verify_imported(
        &self,
        token: AuthToken,
        event: AuditEvent,
    ) -> Result<Verification, StoreError> {
        let now = event.at;
        let token = UuidColumn(*token.as_uuid());
        // Finds the row that the Django backend mailed this link for. If several rows share the `auth_token`,
        // the link is ambiguous and therefore invalid. Checked with a read, so that a token that was never
        // imported does not cost a write transaction.
        let rows: Vec<(Option<i64>, TimestampColumn)> = read!(&self.connections, connection => {
            let imported = core_imported_user::table.filter(core_imported_user::auth_token.eq(token));
            let query = imported.select((core_imported_user::user_id, core_imported_user::updated_at));
            Ok(query.load(connection).await?)
        })?;
        let &[(Some(id), written_at)] = rows.as_slice() else { return Ok(Verification::Invalid) };
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, UserId::from_i64(id)) else { return Ok(Verification::Invalid) };
            if user.auth_token.as_uuid() != &token.0 {
                return Ok(Verification::Invalid);
            }
            if user.is_verified {
                return Ok(Verification::AlreadyVerified);
            }
            let is_disabled: bool = diesel::select(is_disabled!(id)).get_result(connection).await?;
            if is_disabled || user.updated_at != written_at.0 {
                return Ok(Verification::Invalid);
            }
            let verified: UserRow = diesel::update(core_user::table.find(id))
                .set((core_user::is_verified.eq(true), core_user::updated_at.eq(TimestampColumn(now))))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await?;
            record!(connection, event);
            Ok(Verification::Verified(verified.into()))
        })
    }

    /// Creates a new link for the user with this email, and with this id if one is given, and enqueues its
    /// mail. At the time of the event, voids the user's older links for the same purpose, whether their mails
    /// were sent or not, and records the event. Returns the user. Changes nothing and returns `None` if there
    /// is no such user, the user is disabled, or the link is to verify an email that is already verified.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; the older links then stay valid.
    pub async fn replace_link(
        &self,
        (email, of): (&Email, Option<UserId>),
        purpose: MailTokenPurpose,
        mail: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, StoreError> {
        let (email, now) = (email.as_str().to_owned(), event.at);
        write!(&self.connections, connection => {
            // An UPDATE that changes nothing locks the row on both engines, so the later of two concurrent
            // calls voids the link of the earlier one.
            let of_email = core_user::table.filter(core_user::email.eq(email));
            let user: Option<UserRow> = diesel::update(of_email)
                .set(core_user::is_verified.eq(core_user::is_verified))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            let user = user.map(User::from);
            let user = user.filter(|user| purpose != MailTokenPurpose::VerifyEmail || !user.is_verified);
            let user = user.filter(|user| of.is_none_or(|of| user.id == of));
            let Some(user) = user else { return Ok(None) };
            if diesel::select(is_disabled!(user.id.as_i64())).get_result::<bool>(connection).await? {
                return Ok(None);
            }
            void_links!(connection, user.id, purpose, now);
            post!(connection, user.id, &mail, now);
            record!(connection, event.about(Some(user.auth_token)));
            Ok(Some(user))
        })
    }
}
