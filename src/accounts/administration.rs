//! What an operator does to accounts.

use super::{AccountError, audit};
use crate::{
    clock::Clock,
    domain::{AuditEvent, AuditKind, AuthToken, Email, Origin, User, UserId, Username},
    store::{AuditFilter, EventPlace, RecordedEvent, Store},
};

/// The verbs of an operator. Cheap to clone.
#[derive(Clone)]
pub struct Administration {
    store: Store,
    clock: Clock,
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
    pub const fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// The next users in the order of their registration, at most `limit`.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn list_users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<User>, AccountError> {
        Ok(self.store.list_users(after, limit).await?)
    }

    /// The user of that name.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn find_user(&self, key: &UserKey) -> Result<User, AccountError> {
        let user = match key {
            UserKey::AuthToken(token) => self.store.find_user_by_auth_token(*token).await?,
            UserKey::Email(email) => self.store.find_user_by_email(email).await?,
            UserKey::Username(username) => self.store.find_user_by_username(username).await?,
        };
        user.ok_or(AccountError::UserNotFound)
    }

    /// Marks the user's email as verified without a link.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], [`AccountError::EmailAlreadyVerified`], or that the database is not available.
    pub async fn verify_user(&self, key: &UserKey, origin: &Origin) -> Result<User, AccountError> {
        let user = self.find_user(key).await?;
        if user.is_verified {
            return Err(AccountError::EmailAlreadyVerified);
        }
        let event = self.event(AuditKind::UserUpdated, &user, origin);
        let user =
            self.store.mark_verified(user.id, event.clone()).await?.ok_or(AccountError::UserNotFound)?;
        audit::log(&event);
        Ok(user)
    }

    /// Forgets the wrong passwords that this user's account has taken, so that nobody has to wait; gives whether there were any.
    ///
    /// # Errors
    /// [`AccountError::UserNotFound`], or that the database is not available.
    pub async fn unlock_user(&self, key: &UserKey, origin: &Origin) -> Result<bool, AccountError> {
        let user = self.find_user(key).await?;
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
        let user = self.find_user(key).await?;
        let event = self.event(AuditKind::UserDeleted, &user, origin);
        if !self.store.delete_user(user.id, event.clone()).await? {
            return Err(AccountError::UserNotFound);
        }
        audit::log(&event);
        Ok(user)
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
        Ok(self.store.list_audit_events(filter, after, limit).await?)
    }

    fn event(&self, kind: AuditKind, user: &User, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone()).about(Some(user.auth_token))
    }
}
