//! Changes that a user makes to their own account. Each change is one transaction, together with its mails,
//! its audit event and the deletion of the sessions that it revokes.
//!
//! A known address is a network address from which the user has begun a session.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    known_addresses::KnownAddressStatements,
    links::LinkStatements,
    never_verified_users::NeverVerifiedUserStatements,
    new_mail::{NewMail, NoticedEvent},
    sessions::SessionStatements,
    throttle::ThrottleStatements,
    users::{UserChange, UserStatements},
};
use crate::{
    database::{DatabaseError, audit_log::RecordedEvents, statements, write},
    domain::{
        AuditEvent, MailTokenDigest, MailTokenPurpose, PasswordHash, SessionId, Timestamp, User, UserId,
        Username,
    },
    store::{Store, schema::core_user},
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
    /// The session that stays; all others are revoked.
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

/// The undoing of an email change.
#[derive(Debug, Clone)]
pub struct EmailUndo {
    /// The mail to the email that the user has now. The undo is refused if the user has another one.
    pub removed: NewMail,
    /// The mail to the restored email. The transaction sets its recipient to that email.
    pub restored: NewMail,
    /// The audit event for a deleted user who registered with the restored email and never verified it.
    pub deletion: AuditEvent,
    /// The audit event, recorded in the same transaction. Its time is the time of the change.
    pub event: AuditEvent,
}

statements! {
    /// Statements on changes that a mailed link authorizes.
    trait LinkedChangeStatements {
        /// Changes a user at the time of the event, revokes all sessions, deletes the known addresses, and
        /// voids all links of the user but those that undo an email change. Enqueues the notice, records the
        /// event with this user and returns the user.
        async fn apply_linked_change(
            &mut self,
            user: UserId,
            change: UserChange,
            notice: &NewMail,
            event: AuditEvent,
            recorded: &mut RecordedEvents,
        ) -> Result<User, DatabaseError> {
            let now = event.at;
            let user = self.change_user(user, change, now).await?;
            self.void_account_links(user.id, now).await?;
            self.delete_sessions_of(user.id, None).await?;
            self.delete_known_addresses(user.id).await?;
            self.enqueue_mail(user.id, notice, now).await?;
            self.record(event.with_user(Some(user.auth_token)), recorded).await?;
            Ok(user)
        }
    }
}

impl Store {
    /// Changes a password, revokes the user's other sessions and deletes the known addresses. Voids the
    /// password reset and email change links, because an intruder may have requested them with the old
    /// password. Changes nothing and returns false if the password changed, or the user was disabled or
    /// deleted, after the current password was verified.
    pub async fn change_password(&self, change: PasswordChange) -> Result<bool, DatabaseError> {
        let now = change.event.at;
        write!(&self.connections, connection, recorded => {
            if connection.lock_if_unchanged(change.user, &change.old).await?.is_none() {
                return Ok(false);
            }
            let password = Some(change.new.expose().to_owned());
            connection.change_user(change.user, UserChange { password, ..UserChange::default() }, now).await?;
            connection.void_links(change.user, MailTokenPurpose::ResetPassword, now).await?;
            connection.void_links(change.user, MailTokenPurpose::ChangeEmail, now).await?;
            connection.delete_sessions_of(change.user, Some(change.keep)).await?;
            connection.delete_known_addresses(change.user).await?;
            connection.enqueue_mail(change.user, &change.notice, now).await?;
            connection.record(change.event, recorded).await?;
            Ok(true)
        })
    }

    /// Uses up a password reset link and sets a new password at the time of the event. The link also verifies
    /// the user's email. Voids all other links but those that undo an email change, revokes all sessions,
    /// clears the failed login attempts and deletes the known addresses. Returns the user, or `None` if the
    /// link is invalid, or was mailed to an address that is no longer the user's email.
    pub async fn reset_password(
        &self,
        token: MailTokenDigest,
        password: PasswordHash,
        notice: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_link_owner(token).await? else { return Ok(None) };
            let mailed_to = connection.use_link(user.id, token, MailTokenPurpose::ResetPassword, event.at).await?;
            if mailed_to.as_ref() != Some(&user.email) {
                return Ok(None);
            }
            let change =
                UserChange { password: Some(password.expose().to_owned()), ..UserChange::verified(true) };
            // Before the known addresses are deleted: through them, the attempts that came from each are
            // found.
            connection.delete_password_attempts(&user).await?;
            let user = connection.apply_linked_change(user.id, change, &notice, event, recorded).await?;
            Ok(Some(user))
        })
    }

    /// Enqueues a confirmation link for the new address and a notice for the old one, and voids earlier email
    /// change links. Changes nothing and returns false if the password changed, or the user was disabled or
    /// deleted, after the current password was verified.
    pub async fn request_email_change(&self, request: EmailChangeRequest) -> Result<bool, DatabaseError> {
        let (user, now) = (request.user, request.event.at);
        write!(&self.connections, connection, recorded => {
            if connection.lock_if_unchanged(user, &request.password).await?.is_none() {
                return Ok(false);
            }
            connection.void_links(user, MailTokenPurpose::ChangeEmail, now).await?;
            connection.enqueue_mail(user, &request.link, now).await?;
            connection.enqueue_mail(user, &request.notice, now).await?;
            connection.record(request.event, recorded).await?;
            Ok(true)
        })
    }

    /// Uses up an email change link at the time of the event. Sets the user's email to the address that the
    /// link was mailed to. Deletes another user who registered with that address and never verified it.
    /// Revokes all sessions, deletes the known addresses and voids all other links but those that undo an
    /// email change. Returns the user, or `None` if the link is invalid, or if the recipient of the notice is
    /// no longer the user's email.
    ///
    /// # Errors
    /// [`DatabaseError::NotUnique`] if the address belongs to another user who cannot be deleted, for example
    /// because that user verified it in the meantime; the link is then unused.
    pub async fn confirm_email_change(
        &self,
        token: MailTokenDigest,
        notice: NewMail,
        event: AuditEvent,
        deletion: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            let owner = connection.lock_link_owner(token).await?;
            let Some(user) = owner.filter(|user| user.email == notice.recipient) else { return Ok(None) };
            let mailed_to = connection.use_link(user.id, token, MailTokenPurpose::ChangeEmail, event.at).await?;
            let Some(email) = mailed_to else { return Ok(None) };
            // The reader of this mail owns the address, so an unverified registration with it is deleted.
            connection.delete_never_verified_user(&email, user.id, &deletion, recorded).await?;
            let change = UserChange { email: Some(email.as_str().to_owned()), ..UserChange::verified(true) };
            connection.apply_linked_change(user.id, change, &notice, event, recorded).await.map(Some)
        })
    }

    /// Uses up a link that undoes an email change, at the time of the event. Sets the user's email to the
    /// address that the link was mailed to. Otherwise does what [`Store::confirm_email_change`] does, and
    /// also voids the links that undo a later change: the owner of the earlier address has the last word.
    /// Returns the user, or `None` if the link is invalid, or if the user has another email than the
    /// recipient of the notice, or has the address already.
    ///
    /// # Errors
    /// [`DatabaseError::NotUnique`] if the address belongs to another user who cannot be deleted; the link is
    /// then unused.
    pub async fn undo_email_change(
        &self,
        token: MailTokenDigest,
        undo: EmailUndo,
    ) -> Result<Option<User>, DatabaseError> {
        let EmailUndo { removed, restored, deletion, event } = undo;
        let now = event.at;
        write!(&self.connections, connection, recorded => {
            let owner = connection.lock_link_owner(token).await?;
            let Some(user) = owner.filter(|user| user.email == removed.recipient) else { return Ok(None) };
            let mailed_to = connection.use_link(user.id, token, MailTokenPurpose::UndoEmailChange, now).await?;
            let Some(email) = mailed_to.filter(|email| *email != user.email) else { return Ok(None) };
            connection.void_later_undo_links(user.id, token, now).await?;
            connection.enqueue_mail(user.id, &removed, now).await?;
            // The reader of this mail owns the address, so an unverified registration with it is deleted.
            connection.delete_never_verified_user(&email, user.id, &deletion, recorded).await?;
            let change = UserChange { email: Some(email.as_str().to_owned()), ..UserChange::verified(true) };
            let restored = NewMail { recipient: email, ..restored };
            connection.apply_linked_change(user.id, change, &restored, event, recorded).await.map(Some)
        })
    }

    /// Deletes a user with their sessions, links, mails and registration requests, records the event and
    /// enqueues its notice. Changes nothing and returns false if the password changed, or the user was
    /// disabled or deleted, after the current password was verified.
    pub async fn delete_account(
        &self,
        user: UserId,
        password: PasswordHash,
        event: impl Into<NoticedEvent>,
    ) -> Result<bool, DatabaseError> {
        let event = event.into();
        write!(&self.connections, connection, recorded => {
            if connection.lock_if_unchanged(user, &password).await?.is_none() {
                return Ok(false);
            }
            let Some(user) = connection.lock_user(user).await? else { return Ok(false) };
            connection.delete_with_notice(&user, event, recorded).await?;
            Ok(true)
        })
    }

    /// Enqueues a notice for the verified user whose email is the recipient. Returns false if there is no
    /// such user.
    pub async fn enqueue_notice(&self, notice: NewMail, now: Timestamp) -> Result<bool, DatabaseError> {
        write!(&self.connections, connection => {
            let user: Option<i64> = core_user::table
                .filter(core_user::email.eq(notice.recipient.as_str().to_owned()))
                .filter(core_user::is_verified.eq(true))
                .select(core_user::id)
                .get_result(connection)
                .await
                .optional()?;
            let Some(user) = user else { return Ok(false) };
            connection.enqueue_mail(UserId::from_i64(user), &notice, now).await?;
            Ok(true)
        })
    }

    /// Changes a username at the time of the event. In the same transaction, enqueues the notice and records
    /// the event. Returns the user, or `None` if the user was deleted or is disabled.
    ///
    /// # Errors
    /// [`DatabaseError::NotUnique`] if another user has the username, or one with the same username key.
    pub async fn change_username(
        &self,
        user: UserId,
        username: &Username,
        notice: NewMail,
        event: AuditEvent,
    ) -> Result<Option<User>, DatabaseError> {
        let change = UserChange {
            username: Some(username.as_str().to_owned()),
            username_key: Some(username.key().to_owned()),
            ..UserChange::default()
        };
        write!(&self.connections, connection, recorded => {
            if connection.lock_enabled_user(user).await?.is_none() {
                return Ok(None);
            }
            let changed = connection.change_user(user, change, event.at).await?;
            connection.enqueue_mail(user, &notice, event.at).await?;
            connection.record(event, recorded).await?;
            Ok(Some(changed))
        })
    }
}
