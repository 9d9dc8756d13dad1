//! Login.

use super::{AccountError, Accounts};
use crate::{
    domain::{AuditKind, Email, Origin, Password, User},
    password::Verdict,
    store::Credentials,
};

impl Accounts {
    /// Checks the password of the account with this email, and replaces a hash of another scheme or a lower cost.
    ///
    /// An email that nobody has costs a hash too, so that it cannot be told from a wrong password by time.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], before anything is checked; [`AccountError::InvalidCredentials`];
    /// [`AccountError::EmailNotVerified`] only after the right password; or that the service is overloaded, without its
    /// database or broken.
    pub async fn log_in(
        &self,
        email: &Email,
        password: &Password,
        origin: &Origin,
    ) -> Result<User, AccountError> {
        // First, so that who is turned away costs the database nothing and waits for nobody.
        let place = self.with.passwords.reserve()?;
        let guess = self.count_guess(email, origin).await?;
        let credentials = self.with.store.find_credentials(email).await?;
        let hash = credentials.as_ref().map(|credentials| credentials.password.clone());
        let verdict = self.with.passwords.verify(place, password, hash).await?;

        let user = credentials.as_ref().map(|credentials| credentials.user.auth_token);
        let event = |kind| self.with.audit.event(kind, origin).about(user);
        match (credentials, verdict) {
            (Some(credentials), Verdict::Right { needs_rewrite }) if credentials.user.is_verified => {
                self.forgive(guess, Some(event(AuditKind::AuthnLoginSuccess))).await;
                if needs_rewrite {
                    self.rewrite_hash(&credentials, password).await;
                }
                Ok(credentials.user)
            }
            (Some(_), Verdict::Right { .. }) => {
                self.forgive(guess, None).await;
                let event = event(AuditKind::AuthnLoginFail);
                Err(self.with.audit.refused(event, None, AccountError::EmailNotVerified))
            }
            (_, Verdict::Wrong) | (None, Verdict::Right { .. }) => {
                let event = event(AuditKind::AuthnLoginFail);
                Err(self.with.audit.refused(event, None, AccountError::InvalidCredentials))
            }
        }
    }

    /// A failure is no reason to refuse the login: the next one tries again.
    async fn rewrite_hash(&self, credentials: &Credentials, password: &Password) {
        let user = credentials.user.id;
        let hash = match self.with.passwords.rehash(password).await {
            Ok(hash) => hash,
            Err(error) => {
                return tracing::warn!(user.id = %user, %error, "An outdated password hash stays for now");
            }
        };
        match self.with.store.rewrite_password(user, &credentials.password, &hash).await {
            Ok(true) => tracing::info!(user.id = %user, "Replaced an outdated password hash"),
            Ok(false) => {} // the password was changed meanwhile
            Err(error) => {
                tracing::warn!(user.id = %user, error = %error.chain(), "An outdated password hash stays for now");
            }
        }
    }
}
