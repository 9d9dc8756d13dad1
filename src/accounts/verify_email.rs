//! Use of the link that verifies an email.

use std::sync::atomic::Ordering;

use super::{AccountError, Accounts};
use crate::{
    domain::{AuditKind, AuthToken, LinkToken, Origin, User},
    store::Verification,
};

/// Audit `resource` of a link that the Django backend mailed.
const OLD_LINK: &str = "auth_token link";

/// Whether verification links of the Django backend are accepted. They contain an `auth_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldLinks {
    /// They are accepted until a date.
    Accepted,
    /// They were accepted until a date that has passed.
    Ended,
    /// They are never accepted.
    Refused,
}

impl Accounts {
    /// Returns whether verification links of the Django backend are accepted now.
    #[must_use]
    pub fn old_links(&self) -> OldLinks {
        match self.options.accept_auth_token_until {
            Some(until) if self.deps.env.clock.now() < until => OldLinks::Accepted,
            Some(_) => OldLinks::Ended,
            None => OldLinks::Refused,
        }
    }

    /// Marks the email that the token was mailed to as verified, deletes the user's known addresses, and uses
    /// up the token.
    ///
    /// # Errors
    /// [`AccountError::EmailAlreadyVerified`] for a token that has verified the email before;
    /// [`AccountError::InvalidToken`] for any other token without effect, also for an `auth_token` unless
    /// [`super::AccountsOptions::accept_auth_token_until`] accepts it; or a database error.
    pub async fn verify_email(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let origin = origin.clone();
        self.run_detached(|accounts, _| async move {
            let verified = accounts.verify_with_link(token, &origin).await;
            let failure_event = || accounts.deps.audit.event(AuditKind::UserUpdateFail, &origin);
            verified.map_err(|error| accounts.deps.audit.queue_error(failure_event(), error))
        })
        .await
    }

    /// Does what [`Accounts::verify_email`] does, without recording a refusal.
    async fn verify_with_link(&self, token: LinkToken, origin: &Origin) -> Result<User, AccountError> {
        let token = match token {
            LinkToken::Mailed(token) => token,
            LinkToken::AuthToken(token) => return self.verify_with_old_link(token, origin).await,
            LinkToken::Unknown => return Err(AccountError::InvalidToken),
        };
        let event = self.deps.audit.event(AuditKind::UserUpdated, origin);
        match self.deps.store.verify_email(token.digest(), event).await? {
            Verification::Verified(user) => Ok(user),
            Verification::AlreadyVerified => Err(AccountError::EmailAlreadyVerified),
            Verification::Invalid => Err(AccountError::InvalidToken),
        }
    }

    /// Verifies an email by a link of the Django backend. Such a link contains no secret. It is accepted
    /// until the date that the operator configured, and only for imported users that have not changed since
    /// the import.
    async fn verify_with_old_link(&self, token: AuthToken, origin: &Origin) -> Result<User, AccountError> {
        if self.old_links() != OldLinks::Accepted {
            self.count_refused_old_link();
            return Err(AccountError::InvalidToken);
        }
        let event = self
            .deps
            .audit
            .event(AuditKind::UserUpdated, origin)
            .with_user(Some(token))
            .with_resource(OLD_LINK);
        match self.deps.store.verify_imported(token, event).await? {
            Verification::Verified(user) => {
                tracing::info!(user.id = %user.id, "Accepted a link with an auth_token (Django backend)");
                Ok(user)
            }
            Verification::AlreadyVerified => Err(AccountError::EmailAlreadyVerified),
            Verification::Invalid => Err(AccountError::InvalidToken),
        }
    }

    /// Counts and logs a refused link of the Django backend, so that an operator sees when such links are no
    /// longer used.
    fn count_refused_old_link(&self) {
        let count = self.refused_old_links.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(count, "Refused a link with an auth_token (Django backend; {count} since the start)");
    }
}
