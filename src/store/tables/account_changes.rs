//! Changes that a user makes to their own account. Each change is one transaction, together with its mails,
//! its audit event and the deletion of the sessions that it ends.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    audit::record,
    disabled_users::{is_disabled, lock_user},
    mails::{NewMail, lock_link_owner, post, use_link, void_links},
    sessions::end_sessions_of,
    throttle::forget_attempts,
    users::{UserRow, forget_users, is_unproven},
};
use crate::domain::{
    AuditEvent, MailTokenDigest, MailTokenPurpose, PasswordHash, SessionId, Timestamp, User, UserId, Username,
};
use crate::store::{
    Store, StoreError,
    columns::TimestampColumn,
    connection::{read, write},
    schema::{core_mail_token, core_user},
};

/// A change of password.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    /// The user.
    pub user: UserId,
    /// The stored hash against which the current password was verified.
    pub old: PasswordHash,
    /// The hash of the new password.
    pub new: PasswordHash,
    /// The session that stays; all others end.
    pub keep: SessionId,
    /// The mail that informs the user.
    pub notice: NewMail,
    /// The audit event, recorded in the same transaction. Its time is the time of the change.
    pub event: AuditEvent,
}

/// A request to replace the email of an account.
#[derive(Debug, Clone)]
pub struct EmailChangeRequest {
    /// The user.
    pub user: UserId,
    /// The stored hash against which the current password was verified.
    pub password: PasswordHash,
    /// The mail to the new address, with the link that confirms the change.
    pub link: NewMail,
    /// The mail that informs the old address.
    pub notice: NewMail,
    /// The audit event, recorded in the same transaction. Its time is the time of the request.
    pub event: AuditEvent,
}

/// Locks the user's row. True if the user still exists, still has this password hash and is not disabled.
macro_rules! is_unchanged {
    ($connection:expr, $user:expr, $hash:expr) => {{
        let (user, hash): (UserId, &PasswordHash) = ($user, $hash);
        // An UPDATE that changes nothing locks the row on both engines.
        let same =
            core_user::table.find(user.as_i64()).filter(core_user::password.eq(hash.expose().to_owned()));
        let found = diesel::update(same)
            .set(core_user::is_verified.eq(core_user::is_verified))
            .execute($connection)
            .await?;
        let disabled = is_disabled!(user.as_i64());
        // Checked after the row is locked, because an operator may have disabled the user in the meantime.
        found > 0 && !diesel::select(disabled).get_result::<bool>($connection).await?
    }};
}

impl Store {
    /// Returns the owner of a link if the link is valid for this purpose at `now`. Does not use up the link.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_link_owner(
        &self,
        token: MailTokenDigest,
        purpose: MailTokenPurpose,
        now: Timestamp,
    ) -> Result<Option<User>, StoreError> {
        let digest = token.as_bytes().to_vec();
        read!(&self.connections, connection => {
            let owner: Option<UserRow> = core_mail_token::table
                .inner_join(core_user::table)
                .filter(core_mail_token::digest.eq(digest))
                .filter(core_mail_token::purpose.eq(purpose.as_str()))
                .filter(core_mail_token::expires_at.gt(TimestampColumn(now)))
                .filter(core_mail_token::used_at.is_null())
                .filter(core_mail_token::voided_at.is_null())
                .select(UserRow::as_select())
                .get_result(connection)
                .await
                .optional()?;
            Ok(owner.map(User::from))
        })
    }

    /// Changes a password, ends the user's other sessions and voids the password reset and email change
    /// links, which an intruder may have requested with the old password. Changes nothing and returns false
    /// if the password changed, or the user was disabled or deleted, after the current password was verified.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn change_password(&self, change: PasswordChange) -> Result<bool, StoreError> {
        let now = change.event.at;
        write!(&self.connections, connection => {
            if !is_unchanged!(connection, change.user, &change.old) {
                return Ok(false);
            }
            diesel::update(core_user::table.find(change.user.as_i64()))
                .set((
                    core_user::password.eq(change.new.expose().to_owned()),
                    core_user::updated_at.eq(TimestampColumn(now)),
                ))
                .execute(connection)
                .await?;
            void_links!(connection, change.user, MailTokenPurpose::ResetPassword, now);
            void_links!(connection, change.user, MailTokenPurpose::ChangeEmail, now);
            end_sessions_of!(connection, change.user.as_i64(), Some(change.keep));
            post!(connection, change.user, &change.notice, now);
            record!(connection, change.event);
            Ok(true)
        })
    }

    /// Uses up a password reset link and sets a new password at the time of the event. The link also verifies
    /// the user's email. Voids all other links, ends all sessions and clears the failed login attempts.
    /// Returns the user, or `None` if the link is invalid, or was mailed to an address that is no longer the
    /// user's email.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; the link is then unused.
    pub async fn reset_password(
        &self,
        token: MailTokenDigest,
        password: PasswordHash,
        notice: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let Some(user) = lock_link_owner!(connection, token) else { return Ok(None) };
            let mailed_to = use_link!(connection, user.id, token, MailTokenPurpose::ResetPassword, now);
            if mailed_to.as_ref() != Some(&user.email) {
                return Ok(None);
            }
            let user: UserRow = diesel::update(core_user::table.find(user.id.as_i64()))
                .set((
                    core_user::password.eq(password.expose().to_owned()),
                    core_user::is_verified.eq(true),
                    core_user::updated_at.eq(TimestampColumn(now)),
                ))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await?;
            let user = User::from(user);
            for purpose in MailTokenPurpose::ALL {
                void_links!(connection, user.id, purpose, now);
            }
            end_sessions_of!(connection, user.id.as_i64(), None);
            let _ = forget_attempts!(connection, &user.email);
            post!(connection, user.id, &notice, now);
            record!(connection, event.about(Some(user.auth_token)));
            Ok(Some(user))
        })
    }

    /// Enqueues a confirmation link for the new address and a notice for the old one, and voids earlier email
    /// change links. Changes nothing and returns false if the password changed, or the user was disabled or
    /// deleted, after the current password was verified.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn request_email_change(&self, request: EmailChangeRequest) -> Result<bool, StoreError> {
        let (user, now) = (request.user, request.event.at);
        write!(&self.connections, connection => {
            if !is_unchanged!(connection, user, &request.password) {
                return Ok(false);
            }
            void_links!(connection, user, MailTokenPurpose::ChangeEmail, now);
            post!(connection, user, &request.link, now);
            post!(connection, user, &request.notice, now);
            record!(connection, request.event);
            Ok(true)
        })
    }

    /// Uses up an email change link and sets the user's email to the address that the link was mailed to, at
    /// the time of the event. Deletes another user who registered with that address and never verified it.
    /// Ends all sessions and voids all other links. Returns the user and the audit events of the deleted
    /// users. Returns `None` if the link is invalid, or if the recipient of the notice is no longer the
    /// user's email.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`] if the address belongs to another user who cannot be deleted, for example
    /// because that user verified it in the meantime; the link is then unused.
    pub async fn confirm_email_change(
        &self,
        token: MailTokenDigest,
        notice: NewMail,
        event: AuditEvent,
        deletion: AuditEvent,
    ) -> Result<Option<(User, Vec<AuditEvent>)>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let owner = lock_link_owner!(connection, token);
            let Some(user) = owner.filter(|user| user.email == notice.recipient) else { return Ok(None) };
            let mailed_to = use_link!(connection, user.id, token, MailTokenPurpose::ChangeEmail, now);
            let Some(email) = mailed_to else { return Ok(None) };
            // The reader of this mail owns the address, so an unverified registration with it is deleted.
            let deleted = forget_users!(
                connection,
                core_user::table
                    .filter(core_user::email.eq(email.as_str().to_owned()))
                    .filter(is_unproven!())
                    .filter(core_user::id.ne(user.id.as_i64())),
                &deletion
            );
            let user: UserRow = diesel::update(core_user::table.find(user.id.as_i64()))
                .set((
                    core_user::email.eq(email.as_str().to_owned()),
                    core_user::is_verified.eq(true),
                    core_user::updated_at.eq(TimestampColumn(now)),
                ))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await?;
            let user = User::from(user);
            for purpose in MailTokenPurpose::ALL {
                void_links!(connection, user.id, purpose, now);
            }
            end_sessions_of!(connection, user.id.as_i64(), None);
            post!(connection, user.id, &notice, now);
            record!(connection, event.about(Some(user.auth_token)));
            Ok(Some((user, deleted)))
        })
    }

    /// Deletes a user with their sessions, links, mails and registration requests, and records the event.
    /// Changes nothing and returns false if the password changed, or the user was disabled or deleted, after
    /// the current password was verified.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn delete_account(
        &self,
        user: UserId,
        password: PasswordHash,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            if !is_unchanged!(connection, user, &password) {
                return Ok(false);
            }
            diesel::delete(core_user::table.find(user.as_i64())).execute(connection).await?;
            record!(connection, event);
            Ok(true)
        })
    }

    /// Enqueues a notice for the verified user with the recipient's email. Returns false if there is no such
    /// user.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn enqueue_notice(&self, notice: NewMail, now: Timestamp) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            let user: Option<i64> = core_user::table
                .filter(core_user::email.eq(notice.recipient.as_str().to_owned()))
                .filter(core_user::is_verified.eq(true))
                .select(core_user::id)
                .get_result(connection)
                .await
                .optional()?;
            let Some(user) = user else { return Ok(false) };
            post!(connection, UserId::from_i64(user), &notice, now);
            Ok(true)
        })
    }

    /// Changes a username at the time of the event. In the same transaction, enqueues the notice and records
    /// the event. Returns the user, or `None` if the user was deleted or is disabled.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`] if another user has the username, or one with the same comparison form.
    pub async fn change_username(
        &self,
        user: UserId,
        username: &Username,
        notice: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, StoreError> {
        let (name, key, now) = (username.as_str().to_owned(), username.key().to_owned(), event.at);
        write!(&self.connections, connection => {
            let locked = lock_user!(connection, user);
            if locked.is_none()
                || diesel::select(is_disabled!(user.as_i64())).get_result::<bool>(connection).await?
            {
                return Ok(None);
            }
            let changed: Option<UserRow> = diesel::update(core_user::table.find(user.as_i64()))
                .set((
                    core_user::username.eq(name),
                    core_user::username_key.eq(key),
                    core_user::updated_at.eq(TimestampColumn(now)),
                ))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            if changed.is_some() {
                post!(connection, user, &notice, now);
                record!(connection, event);
            }
            Ok(changed.map(User::from))
        })
    }
}
