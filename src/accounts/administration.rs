//! The operations of an operator on accounts, for the command line and `AdminService`. An operator can
//! neither read nor choose a password.
//!
//! A known address of a user is a network address from which the user has begun a session.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{AccountError, MailedBy, Mails};
use crate::{
    clock::Clock,
    database::log_audit_event,
    domain::{
        AuditEvent, AuditKind, AuthToken, Email, MailKind, MailTokenPurpose, Origin, Timestamp, User, UserId,
        Username,
    },
    store::{
        AuditFilter, EventPosition, LinkOwner, ManagedUser, NewMail, NoticedEvent, RecordedEvent, Store,
        UserFilter,
    },
};

/// The operations of an operator. Cheap to clone.
#[derive(Clone)]
pub struct Administration {
    store: Store,
    clock: Clock,
    /// Allows one list query at a time: it reads many rows, and the other calls need the remaining
    /// connections.
    lists: Arc<Semaphore>,
}

/// The key by which an operator selects a user.
#[derive(Debug, Clone)]
pub enum UserKey {
    /// The identifier.
    AuthToken(AuthToken),
    /// The email.
    Email(Email),
    /// The username.
    Username(Username),
}

impl Administration {
    /// Creates the operations on the accounts of this store.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, lists: Arc::new(Semaphore::new(1)) }
    }

    /// Returns at most `limit` users that match the filter, in the order of registration, starting after
    /// `after`.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_users(
        &self,
        filter: UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<ManagedUser>, AccountError> {
        let _list_permit = self.lists.acquire().await;
        Ok(self.store.list_users(filter, after, limit).await?)
    }

    /// Returns the user with this key.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn find_user(&self, key: &UserKey) -> Result<ManagedUser, AccountError> {
        let auth_token = match key {
            UserKey::AuthToken(token) => Some(*token),
            UserKey::Email(email) => self.store.find_user_by_email(email).await?.map(|user| user.auth_token),
            UserKey::Username(username) => {
                self.store.find_user_by_username(username).await?.map(|user| user.auth_token)
            }
        };
        let auth_token = auth_token.ok_or(AccountError::UserNotFound)?;
        self.store.find_managed_user(auth_token).await?.ok_or(AccountError::UserNotFound)
    }

    /// Returns the user with this key, and notes the user in the call, for the event of a call that changes
    /// nothing or is refused.
    async fn find_noted(&self, key: &UserKey, origin: &Origin) -> Result<ManagedUser, AccountError> {
        let found = self.find_user(key).await?;
        origin.note.set_user(found.user.auth_token);
        Ok(found)
    }

    /// Returns the user as it is after a change.
    ///
    /// # Errors
    /// Although the change is committed: [`AccountError::UserNotFound`] if the user was deleted meanwhile, or
    /// a database error, after which a caller does not know whether the change was made.
    async fn changed_user(&self, user: &User) -> Result<ManagedUser, AccountError> {
        self.find_user(&UserKey::AuthToken(user.auth_token)).await
    }

    /// Marks the user's email as verified, without a link, and deletes the client addresses known from the
    /// user's logins. Succeeds without a change if the email is verified already.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn verify_user(&self, key: &UserKey, origin: &Origin) -> Result<ManagedUser, AccountError> {
        let found = self.find_noted(key, origin).await?;
        let event =
            self.event(AuditKind::UserUpdated, &found.user, origin).with_resource("is_verified: true");
        let updated = self.store.mark_verified(found.user.id, event).await?;
        self.changed_user(&updated.ok_or(AccountError::UserNotFound)?).await
    }

    /// Marks the user's email as not verified, revokes the user's sessions, deletes the user's known
    /// addresses, voids the user's links except those that undo an email change, and mails a new verification
    /// link. A disabled user gets no link. The account is kept even if the link is never used. Succeeds
    /// without a change if the email is not verified.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn unverify_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<ManagedUser, AccountError> {
        let found = self.find_noted(key, origin).await?;
        let event =
            self.event(AuditKind::UserUpdated, &found.user, origin).with_resource("is_verified: false");
        let link = verification_link(mails, &found.user, event.at);
        let updated = self.store.mark_unverified(found.user.id, link, event).await?;
        mails.wake_outbox();
        self.changed_user(&updated.ok_or(AccountError::UserNotFound)?).await
    }

    /// Disables the user: refuses logins, revokes the user's sessions, deletes the client addresses known
    /// from the user's logins, voids the user's links except those that undo an email change, and mails a
    /// notice to a verified email. Look-ups still return the user. Succeeds without a change if the user is
    /// disabled already.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn disable_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<ManagedUser, AccountError> {
        let found = self.find_noted(key, origin).await?;
        let event = self.event(AuditKind::UserDisabled, &found.user, origin);
        let notice = mails.notice(MailKind::AccountDisabled, &found.user.email, event.at);
        let event = NoticedEvent { event, notice: Some(notice) };
        if !self.store.disable_user(found.user.id, event).await? {
            return Err(AccountError::UserNotFound);
        }
        mails.wake_outbox();
        self.changed_user(&found.user).await
    }

    /// Enables a disabled user, and mails a verification link if the user's email is not verified. Succeeds
    /// without a change if the user is not disabled.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn enable_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<ManagedUser, AccountError> {
        let found = self.find_noted(key, origin).await?;
        let event = self.event(AuditKind::UserEnabled, &found.user, origin);
        let link = verification_link(mails, &found.user, event.at);
        if self.store.enable_user(found.user.id, link, event).await? {
            mails.wake_outbox();
        }
        self.changed_user(&found.user).await
    }

    /// Clears the failed password attempts that were counted for the user's account, so that the next attempt
    /// need not wait. True if there were any. The limits for a client address and for all accounts together
    /// are unchanged.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn unlock_user(&self, key: &UserKey, origin: &Origin) -> Result<bool, AccountError> {
        let user = self.find_noted(key, origin).await?.user;
        let event = self.event(AuditKind::AuthnLoginUnlock, &user, origin);
        Ok(self.store.clear_password_attempts(&user, event).await?)
    }

    /// Deletes the user with all rows that belong to the user, mails a notice to a verified email, and
    /// returns the deleted user.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn delete_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        let user = self.find_noted(key, origin).await?.user;
        let event = self.event(AuditKind::UserDeleted, &user, origin);
        let notice = mails.notice(MailKind::AccountDeleted, &user.email, event.at);
        if !self.store.delete_user(user.id, NoticedEvent { event, notice: Some(notice) }).await? {
            return Err(AccountError::UserNotFound);
        }
        mails.wake_outbox();
        Ok(user)
    }

    /// Revokes all sessions of the user, and returns their number.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`] or a database error.
    pub async fn revoke_user_sessions(&self, key: &UserKey, origin: &Origin) -> Result<usize, AccountError> {
        let user = self.find_noted(key, origin).await?.user;
        let event = self.event(AuditKind::SessionExpired, &user, origin);
        let keep = None;
        Ok(self.store.revoke_sessions(user.id, keep, event).await?)
    }

    /// Mails the user a link to choose a new password; older links of that kind become void. The user's
    /// password and sessions stay valid until the link is used.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], [`AccountError::AccountDisabled`] or a database error.
    pub async fn start_password_reset(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        let found = self.find_noted(key, origin).await?;
        if found.disabled_at.is_some() {
            return Err(AccountError::AccountDisabled);
        }
        let (user, purpose) = (found.user, MailTokenPurpose::ResetPassword);
        let event = self.event(AuditKind::AuthnTokenCreated, &user, origin).with_resource(purpose.as_str());
        let link = mails.link(purpose, &user.email, MailedBy::Service, event.at).mail;
        // With the id: since the look-up, another user may have taken this email.
        let owner = LinkOwner { email: &user.email, id: Some(user.id) };
        let mailed = self.store.replace_link(owner, purpose, link, event).await?;
        let mailed = mailed.ok_or(AccountError::UserNotFound)?;
        mails.wake_outbox();
        Ok(mailed)
    }

    /// Returns at most `limit` audit events that match the filter, in the order of time, starting after
    /// `after`.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_audit_events(
        &self,
        filter: AuditFilter,
        after: Option<EventPosition>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, AccountError> {
        let _list_permit = self.lists.acquire().await;
        Ok(self.store.list_audit_events(filter, after, limit).await?)
    }

    /// Records at once what a command has read, or why it was refused. A call of `AdminService` does not use
    /// this: the layers of the API record it.
    ///
    /// # Errors
    /// A database error.
    pub async fn record_command(&self, event: AuditEvent) -> Result<(), AccountError> {
        log_audit_event(&event);
        Ok(self.store.record_audit_events(vec![event]).await?)
    }

    fn event(&self, kind: AuditKind, user: &User, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone()).with_user(Some(user.auth_token))
    }
}

/// Creates a link that verifies the user's email, to be mailed by this service.
fn verification_link(mails: &Mails, user: &User, now: Timestamp) -> NewMail {
    mails.link(MailTokenPurpose::VerifyEmail, &user.email, MailedBy::Service, now).mail
}
