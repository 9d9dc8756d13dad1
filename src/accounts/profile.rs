//! What a person may change of themselves with their access token alone.

use super::{AccountError, Accounts, ActingUser, audit};
use crate::{
    domain::{AuditKind, MailKind, Origin, User, Username},
    store::StoreError,
};

impl Accounts {
    /// Gives the user who acts another name, and tells them by mail; gives them as they are then. The name that they have is no change.
    ///
    /// # Errors
    /// [`AccountError::UsernameTaken`], [`AccountError::TooManyAttempts`], [`AccountError::UserNotFound`] when they are gone, or that the database is not available.
    pub async fn change_username(
        &self,
        acting: &ActingUser,
        username: &Username,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        if acting.user.username.as_str() == username.as_str() {
            return Ok(acting.user.clone());
        }
        self.count_notice(&acting.user.email).await?;
        let event =
            |kind| self.with.audit.event(kind, origin).about(Some(acting.user.auth_token)).of("username");
        let updated = event(AuditKind::UserUpdated);
        let notice = self.with.mails.notice(MailKind::UsernameChanged, &acting.user.email, updated.at);
        let changed =
            self.with.store.change_username(acting.user.id, username, notice, updated.clone()).await;
        match changed {
            Ok(Some(user)) => {
                self.with.mails.ring();
                audit::log(&updated);
                Ok(user)
            }
            Ok(None) => Err(AccountError::UserNotFound),
            Err(error @ StoreError::NotUnique(_)) => {
                Err(self.with.audit.refused(event(AuditKind::UserUpdateFail), None, error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
