//! Following the mailed link.

use std::sync::atomic::Ordering;

use super::{AccountError, Accounts, audit};
use crate::{
    domain::{AuditKind, LinkToken, Origin, User},
    store::Verification,
};

impl Accounts {
    /// Marks the address that the token was mailed to as proven, and uses the token up.
    ///
    /// # Errors
    /// [`AccountError::EmailAlreadyVerified`] for a token that did its work before, [`AccountError::InvalidToken`] for any
    /// other that does not do it now, an `auth_token` among them; or that the database is not available.
    pub async fn verify_email(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let verified = self.use_link(token, origin).await;
        let event = || self.with.audit.event(AuditKind::UserUpdateFail, origin);
        verified.map_err(|error| self.with.audit.refused(event(), None, error))
    }

    async fn use_link(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let token = match token {
            LinkToken::Mailed(token) => token,
            LinkToken::AuthToken => {
                self.count_old_link();
                return Err(AccountError::InvalidToken);
            }
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

    /// Lets an operator see the links of the Django backend die out.
    fn count_old_link(&self) {
        let count = self.old_links.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(
            count,
            "Refused a link with an auth_token, as the Django backend mailed them ({count} since the start)"
        );
    }
}
