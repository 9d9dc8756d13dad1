//! Changes to a user's own account that require nothing but the user's access token.

use super::{AccountError, Accounts, ActingUser};
use crate::{
    database::DatabaseError,
    domain::{AuditKind, MailKind, Origin, User, Username},
    store::Subject,
};

impl Accounts {
    /// Changes the username of the acting user, mails a notice, and returns the changed user. The current
    /// username is accepted and changes nothing.
    ///
    /// # Errors
    /// [`AccountError::UsernameTaken`]; [`AccountError::TooManyAttempts`]; [`AccountError::UserNotFound`]
    /// when the user was deleted or disabled at the same moment; or a database error.
    pub async fn change_username(
        &self,
        acting: &ActingUser,
        username: &Username,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        if acting.user.username.as_str() == username.as_str() {
            return Ok(acting.user.clone());
        }
        let (acting, username, origin) = (acting.clone(), username.clone(), origin.clone());
        self.run_detached(|accounts, _| async move {
            accounts.change_to_username(&acting, &username, &origin).await
        })
        .await
    }

    /// Runs in the detached task of [`Accounts::change_username`].
    async fn change_to_username(
        &self,
        acting: &ActingUser,
        username: &Username,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        let counted = Subject::user_username_changes(acting.user.auth_token);
        self.count_own_change(counted, &acting.user, origin).await?;
        let event = |kind| {
            self.deps
                .audit
                .event(kind, origin)
                .with_user(Some(acting.user.auth_token))
                .with_resource("username")
        };
        let updated = event(AuditKind::UserUpdated);
        let notice = self.deps.mails.notice(MailKind::UsernameChanged, &acting.user.email, updated.at);
        let changed = self.deps.store.change_username(acting.user.id, username, notice, updated).await;
        match changed {
            Ok(Some(user)) => {
                self.deps.mails.wake_outbox();
                Ok(user)
            }
            Ok(None) => Err(AccountError::UserNotFound),
            Err(error @ DatabaseError::NotUnique(_)) => {
                Err(self.deps.audit.queue_error(event(AuditKind::UserUpdateFail), error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
