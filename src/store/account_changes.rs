//! What a person changes of their account: each change with its mails, its event and the sessions that it ends, in one transaction.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    audit::record,
    columns::TimestampColumn,
    connection::{read, write},
    mails::{NewMail, lock_link_owner, post, use_link, void_links},
    schema::{core_mail_token, core_user},
    sessions::end_sessions_of,
    throttle::forget_attempts,
    user_states::{is_disabled, lock_user},
    users::{UserRow, forget_users, is_unproven},
};
use crate::domain::{
    AuditEvent, MailTokenDigest, MailTokenPurpose, PasswordHash, SessionId, Timestamp, User, UserId, Username,
};

/// A password that takes the place of another.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    /// Whose.
    pub user: UserId,
    /// The hash that the current one was checked against.
    pub old: PasswordHash,
    /// The hash of the new one.
    pub new: PasswordHash,
    /// The session that goes on.
    pub keep: SessionId,
    /// Tells them of it.
    pub notice: NewMail,
    /// Written with it; the time is its.
    pub event: AuditEvent,
}

/// An address that is to take the place of another.
#[derive(Debug, Clone)]
pub struct EmailChangeRequest {
    /// Whose.
    pub user: UserId,
    /// The hash that the current password was checked against.
    pub password: PasswordHash,
    /// To the new address: the link that makes it theirs.
    pub link: NewMail,
    /// Tells the old one of it.
    pub notice: NewMail,
    /// Written with it; the time is its.
    pub event: AuditEvent,
}

/// Locks a user; says whether they are still there, have this hash of a password, and are kept out by nobody.
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
        let is_out = is_disabled!(user.as_i64());
        // Asked behind the lock: an operator may have come first.
        found > 0 && !diesel::select(is_out).get_result::<bool>($connection).await?
    }};
}

impl Store {
    /// Whose link this is, if it is good for this purpose at that time. To use it is another matter.
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

    /// Changes a password, unless it was changed or its owner was disabled since the current one was checked; says whether it did. Ends the other sessions, and voids
    /// the links that somebody who knew the old one may have asked for.
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

    /// Uses up a link and gives its owner a new password, at the time of the event; the link proves their address too. Ends all sessions and
    /// waits. Gives the owner, or nothing when the link is good for nothing.
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

    /// Mails a link to a new address and word of it to the old one, unless the password was changed, or its owner was disabled, since it
    /// was checked; says whether it did. Voids the links to other new addresses.
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

    /// Uses up a link and makes the address that it was mailed to its owner's, at the time of the event. Whoever has registered with it and
    /// never proven it makes room. Ends all sessions and voids all other links. Gives the owner and what was
    /// written down of who made room, or nothing when the link is good for nothing, or they no longer have the address that the notice goes to.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`] when somebody else has proven the address by now; the link is then unused.
    pub async fn confirm_email_change(
        &self,
        token: MailTokenDigest,
        notice: NewMail,
        event: AuditEvent,
        gone: AuditEvent,
    ) -> Result<Option<(User, Vec<AuditEvent>)>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let owner = lock_link_owner!(connection, token);
            let Some(user) = owner.filter(|user| user.email == notice.recipient) else { return Ok(None) };
            let mailed_to = use_link!(connection, user.id, token, MailTokenPurpose::ChangeEmail, now);
            let Some(email) = mailed_to else { return Ok(None) };
            // It is theirs who reads the mail.
            let gone = forget_users!(
                connection,
                core_user::table
                    .filter(core_user::email.eq(email.as_str().to_owned()))
                    .filter(is_unproven!())
                    .filter(core_user::id.ne(user.id.as_i64())),
                &gone
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
            Ok(Some((user, gone)))
        })
    }

    /// Deletes a user with everything that belongs to them, and writes the event, unless the password was changed, or they were disabled, since it
    /// was checked; says whether it did.
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

    /// Mails word of something to the verified user whose address it is; says whether there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn post_notice(&self, notice: NewMail, now: Timestamp) -> Result<bool, StoreError> {
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

    /// Changes a username at the time of the event, which is written with it; gives the user, or nothing when they are gone or
    /// disabled.
    ///
    /// # Errors
    /// [`StoreError::NotUnique`] when another user has it.
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
