//! Following the mailed link.

use std::sync::atomic::Ordering;

use super::{AccountError, Accounts, audit};
use crate::{
    domain::{AuditKind, AuthToken, LinkToken, Origin, User},
    store::Verification,
};

/// What the audit trail has of a link that the Django backend mailed.
const OLD_LINK: &str = "auth_token link";

impl Accounts {
    /// Marks the address that the token was mailed to as proven, and uses the token up.
    ///
    /// # Errors
    /// [`AccountError::EmailAlreadyVerified`] for a token that did its work before, [`AccountError::InvalidToken`] for any
    /// other that does not do it now, an `auth_token` among them but for [`super::AccountsOptions::accept_auth_token_until`]; or that the database is not available.
    pub async fn verify_email(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let verified = self.use_link(token, origin).await;
        let event = || self.with.audit.event(AuditKind::UserUpdateFail, origin);
        verified.map_err(|error| self.with.audit.refused(event(), None, error))
    }

    async fn use_link(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let token = match token {
            LinkToken::Mailed(token) => token,
            LinkToken::AuthToken(token) => return self.use_old_link(token, origin).await,
            LinkToken::Unknown => return Err(AccountError::InvalidToken),
        };
        let event = self.with.audit.event(AuditKind::UserUpdated, origin);
        match self.with.store.verify_email(token.digest(), event.clone()).await? {
            Verification::Verified(user) => {
                audit::log(&event.about(Some(user.auth_token)));
                Ok(user)
            }
            Verification::AlreadyVerified => Err(AccountError::EmailAlreadyVerified),
            Verification::Invalid => Err(AccountError::InvalidToken),
        }
    }

    /// A link of the Django backend holds no secret: it counts until the operator's date, for users who were imported and have not
    /// changed since.
    async fn use_old_link(&self, token: AuthToken, origin: &Origin) -> Result<User, AccountError> {
        let now = self.with.clock.now();
        if self.options.accept_auth_token_until.is_none_or(|until| now >= until) {
            self.count_old_link();
            return Err(AccountError::InvalidToken);
        }
        let event = self.with.audit.event(AuditKind::UserUpdated, origin).about(Some(token)).of(OLD_LINK);
        match self.with.store.verify_imported(token, event.clone()).await? {
            Verification::Verified(user) => {
                audit::log(&event);
                tracing::info!(user.id = %user.id, "Accepted a link with an auth_token, as the Django backend mailed them");
                Ok(user)
            }
            Verification::AlreadyVerified => Err(AccountError::EmailAlreadyVerified),
            Verification::Invalid => Err(AccountError::InvalidToken),
        }
    }

    /// Lets an operator see the links of the Django backend die out.
    fn count_old_link(&self) {
        let count = self.old_links.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(
            count,
            "Refused a link with an auth_token, as the Django backend mailed them ({count} since the start)"
        );
    }
}
