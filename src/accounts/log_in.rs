//! Login.

use super::{AccountError, Accounts, sessions::IssuedTokens, throttle::Guess};
use crate::{
    domain::{AuditKind, Email, Origin, Password},
    password::{Place, Verdict},
    store::Credentials,
};

/// How often a password is checked, if the account changes between the check and the session: twice at the same moment is chance.
const CHECKS_MAX: u32 = 3;

impl Accounts {
    /// Checks the password of the account with this email and begins a session; replaces a hash of another scheme or a lower cost.
    ///
    /// An email that nobody has costs a hash too, so that it cannot be told from a wrong password by time.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], before anything is checked; [`AccountError::InvalidCredentials`];
    /// [`AccountError::AccountDisabled`] and [`AccountError::EmailNotVerified`] only after the right password; or that the service is overloaded, without its
    /// database or broken.
    pub async fn log_in(
        &self,
        email: &Email,
        password: &Password,
        origin: &Origin,
    ) -> Result<IssuedTokens, AccountError> {
        // First, so that who is turned away costs the database nothing and waits for nobody.
        let mut place = Some(self.with.passwords.reserve()?);
        let guess = self.count_guess(email, origin).await?;
        for _ in 0..CHECKS_MAX {
            let place = place.take().map_or_else(|| self.with.passwords.reserve(), Ok)?;
            if let Some(tokens) = self.check_and_open(place, email, password, &guess, origin).await? {
                return Ok(tokens);
            }
        }
        Err(AccountError::InvalidCredentials)
    }

    /// The address of an imported account for a text that is none by the rules: its owner keeps it. For any other text nothing, so that it can be
    /// told what is wrong with it.
    ///
    /// # Errors
    /// That the service is overloaded, without its database or broken.
    pub async fn find_kept_email(&self, text: &str) -> Result<Option<Email>, AccountError> {
        let Ok(email) = Email::keep(text) else { return Ok(None) };
        Ok(self.with.store.find_user_by_email(&email).await?.map(|user| user.email))
    }

    /// Nothing when the account changed after its password was checked.
    async fn check_and_open(
        &self,
        place: Place,
        email: &Email,
        password: &Password,
        guess: &Guess,
        origin: &Origin,
    ) -> Result<Option<IssuedTokens>, AccountError> {
        let credentials = self.with.store.find_credentials(email).await?;
        let hash = credentials.as_ref().map(|credentials| credentials.password.clone());
        let verdict = self.with.passwords.verify(place, password, hash).await?;

        let user = credentials.as_ref().map(|credentials| credentials.user.auth_token);
        let failed = || self.with.audit.event(AuditKind::AuthnLoginFail, origin).about(user);
        match (credentials, verdict) {
            (Some(credentials), Verdict::Right { needs_rewrite })
                if credentials.user.is_verified && !credentials.is_disabled =>
            {
                let (user, hash) = (&credentials.user, &credentials.password);
                let tokens = self.open_session(user, hash, guess, origin).await?;
                if needs_rewrite && tokens.is_some() {
                    self.rewrite_hash(&credentials, password).await;
                }
                Ok(tokens)
            }
            (Some(credentials), Verdict::Right { .. }) => {
                self.forgive(guess).await;
                let refusal = if credentials.is_disabled {
                    AccountError::AccountDisabled
                } else {
                    AccountError::EmailNotVerified
                };
                Err(self.with.audit.refused(failed(), None, refusal))
            }
            (_, Verdict::Wrong) | (None, Verdict::Right { .. }) => {
                Err(self.with.audit.refused(failed(), None, AccountError::InvalidCredentials))
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
