//! What an operator does to accounts, by the command line or by `AdminService`. No operator sees or chooses a password.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{AccountError, MailedBy, Mails, audit};
use crate::{
    clock::Clock,
    domain::{
        AuditEvent, AuditKind, AuthToken, Email, MailTokenPurpose, Origin, Timestamp, User, UserId, Username,
    },
    store::{AuditFilter, EventPlace, ManagedUser, NewMail, RecordedEvent, Store, UserFilter},
};

/// The verbs of an operator. Cheap to clone.
#[derive(Clone)]
pub struct Administration {
    store: Store,
    clock: Clock,
    /// Lists read much; one at a time leaves the others their connections.
    lists: Arc<Semaphore>,
}

/// How an operator names a user.
#[derive(Debug, Clone)]
pub enum UserKey {
    /// By the identifier.
    AuthToken(AuthToken),
    /// By the address.
    Email(Email),
    /// By the name.
    Username(Username),
}

impl Administration {
    /// Administration of the accounts in this store.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, lists: Arc::new(Semaphore::new(1)) }
    }

    /// The next users who pass the filter, in the order of their registration, at most `limit`.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn list_users(
        &self,
        filter: UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<ManagedUser>, AccountError> {
        let _turn = self.lists.acquire().await;
        Ok(self.store.list_users(filter, after, limit).await?)
    }

    /// The user of that name.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
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

    /// Marks the user's email as verified without a link. One that is verified is no error.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn verify_user(&self, key: &UserKey, origin: &Origin) -> Result<ManagedUser, AccountError> {
        let found = self.find_user(key).await?;
        let event = self.event(AuditKind::UserUpdated, &found.user, origin).of("is_verified: true");
        let updated = self.store.mark_verified(found.user.id, event.clone()).await?;
        updated_user(&found, updated, &event)
    }

    /// Marks the user's email as not verified, which ends their sessions and links, and mails them the link that proves it again. Their account
    /// stays, whether they follow it or not.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn unverify_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<ManagedUser, AccountError> {
        let found = self.find_user(key).await?;
        let event = self.event(AuditKind::UserUpdated, &found.user, origin).of("is_verified: false");
        let link = verification_link(mails, &found.user, event.at);
        let updated = self.store.mark_unverified(found.user.id, link, event.clone()).await?;
        mails.ring();
        updated_user(&found, updated, &event)
    }

    /// Keeps the user out: ends their sessions, voids their links, and lets nobody log in. Look-ups know them as before. One who is disabled
    /// is no error.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn disable_user(&self, key: &UserKey, origin: &Origin) -> Result<ManagedUser, AccountError> {
        let found = self.find_user(key).await?;
        let event = self.event(AuditKind::UserDisabled, &found.user, origin);
        match self.store.disable_user(found.user.id, event.clone()).await? {
            Some(true) => audit::log(&event),
            Some(false) => {}
            None => return Err(AccountError::UserNotFound),
        }
        self.find_user(&UserKey::AuthToken(found.user.auth_token)).await
    }

    /// Lets a user in again who was kept out; who has not proven their address is mailed the link that does. One who is not disabled is no error.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn enable_user(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<ManagedUser, AccountError> {
        let found = self.find_user(key).await?;
        let event = self.event(AuditKind::UserEnabled, &found.user, origin);
        let link = verification_link(mails, &found.user, event.at);
        if self.store.enable_user(found.user.id, link, event.clone()).await? {
            mails.ring();
            audit::log(&event);
        }
        Ok(ManagedUser { disabled_at: None, ..found })
    }

    /// Forgets the wrong passwords that this user's account has taken, so that nobody has to wait; gives whether there were any.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn unlock_user(&self, key: &UserKey, origin: &Origin) -> Result<bool, AccountError> {
        let user = self.find_user(key).await?.user;
        let event = self.event(AuditKind::AuthnLoginUnlock, &user, origin);
        let had_attempts = self.store.forget_password_attempts(&user.email, event.clone()).await?;
        if had_attempts {
            audit::log(&event);
        }
        Ok(had_attempts)
    }

    /// Deletes the user with everything that belongs to them; gives who it was.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn delete_user(&self, key: &UserKey, origin: &Origin) -> Result<User, AccountError> {
        let user = self.find_user(key).await?.user;
        let event = self.event(AuditKind::UserDeleted, &user, origin);
        if !self.store.delete_user(user.id, event.clone()).await? {
            return Err(AccountError::UserNotFound);
        }
        audit::log(&event);
        Ok(user)
    }

    /// Ends all sessions of the user; gives how many there were.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn revoke_user_sessions(&self, key: &UserKey, origin: &Origin) -> Result<usize, AccountError> {
        let user = self.find_user(key).await?.user;
        let event = self.event(AuditKind::SessionExpired, &user, origin);
        let ended = self.store.end_sessions(user.id, None, event.clone()).await?;
        if ended > 0 {
            audit::log(&event);
        }
        Ok(ended)
    }

    /// Mails the user a link to choose a new password with, which voids the older ones. Their password and their sessions stay as they are until
    /// they follow it.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], [`AccountError::AccountDisabled`], or that the database is not available.
    pub async fn start_password_reset(
        &self,
        key: &UserKey,
        mails: &Mails,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        let found = self.find_user(key).await?;
        if found.disabled_at.is_some() {
            return Err(AccountError::AccountDisabled);
        }
        let (user, purpose) = (found.user, MailTokenPurpose::ResetPassword);
        let event = self.event(AuditKind::AuthnTokenCreated, &user, origin).of(purpose.as_str());
        let link = mails.link(purpose, &user.email, MailedBy::Service, event.at).mail;
        // They may have gone, or been disabled, or have another address by now.
        let owner = (&user.email, Some(user.id));
        let mailed = self.store.replace_link(owner, purpose, link, event.clone()).await?;
        let mailed = mailed.ok_or(AccountError::UserNotFound)?;
        mails.ring();
        audit::log(&event);
        Ok(mailed)
    }

    /// The next audit events that pass the filter, in the order of their time, at most `limit`.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn list_audit_events(
        &self,
        filter: AuditFilter,
        after: Option<EventPlace>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, AccountError> {
        let _turn = self.lists.acquire().await;
        Ok(self.store.list_audit_events(filter, after, limit).await?)
    }

    fn event(&self, kind: AuditKind, user: &User, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone()).about(Some(user.auth_token))
    }
}

/// The link that proves a user's address, from this service.
fn verification_link(mails: &Mails, user: &User, now: Timestamp) -> NewMail {
    mails.link(MailTokenPurpose::VerifyEmail, &user.email, MailedBy::Service, now).mail
}

/// A user as an update has left them, which is logged if it changed anything.
fn updated_user(
    found: &ManagedUser,
    updated: Option<(User, bool)>,
    event: &AuditEvent,
) -> Result<ManagedUser, AccountError> {
    let (user, is_changed) = updated.ok_or(AccountError::UserNotFound)?;
    if is_changed {
        audit::log(event);
    }
    Ok(ManagedUser { user, disabled_at: found.disabled_at })
}
