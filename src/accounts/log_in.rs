//! Login.

use tokio_util::sync::CancellationToken;

use super::{
    AccountError, Accounts, attempt_limits::AttemptedAccount, password_attempts::PasswordAttempt,
    sessions::IssuedTokens,
};
use crate::{
    domain::{AuditKind, Email, MailKind, Origin, Password},
    password::{QueueSlot, Verdict},
    store::{Credentials, Subject},
};

/// Maximum number of password checks in one login. A check is repeated if the account changed before the
/// session was opened. Three checks allow two such changes, and even two are very unlikely.
const CHECKS_MAX: u32 = 3;

impl Accounts {
    /// Verifies the password of the account with this email and opens a session. Replaces a hash of another
    /// scheme or of a lower cost.
    ///
    /// An unknown email costs a hash too, so that the response time does not distinguish it from a wrong
    /// password.
    ///
    /// A login whose caller has gone before its password is compared changes nothing. Once the comparison has
    /// begun, its result is counted and recorded whether or not the caller waits.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], before anything is checked; [`AccountError::InvalidCredentials`];
    /// [`AccountError::AccountDisabled`] and [`AccountError::EmailNotVerified`], only after the correct
    /// password; [`AccountError::Overloaded`], [`AccountError::StoreUnavailable`] or
    /// [`AccountError::Internal`].
    pub async fn log_in(
        &self,
        email: &Email,
        password: &Password,
        origin: &Origin,
    ) -> Result<IssuedTokens, AccountError> {
        // Reserved first: a login that is refused because the queue is full causes no database query and does
        // not wait.
        let first_slot = self.deps.passwords.reserve()?;
        let (email, password, origin) = (email.clone(), password.clone(), origin.clone());
        self.run_detached(|accounts, caller_gone| async move {
            accounts.check_credentials(first_slot, &email, &password, &origin, caller_gone).await
        })
        .await
    }

    /// Checks the password, and again if the account changed before the session was opened. The first check
    /// uses `first_slot`; each further one reserves its own.
    async fn check_credentials(
        &self,
        first_slot: QueueSlot,
        email: &Email,
        password: &Password,
        origin: &Origin,
        caller_gone: CancellationToken,
    ) -> Result<IssuedTokens, AccountError> {
        let mut first_slot = Some(first_slot);
        // The attempts are counted for the stored form, which a reset and an unlock of the account clear.
        let email = &self.deps.store.stored_email(email).await?;
        let mut attempt = self.reserve_attempt(AttemptedAccount::Named(email), origin, caller_gone).await?;
        for _ in 0..CHECKS_MAX {
            let slot = first_slot.take().map_or_else(|| self.deps.passwords.reserve(), Ok)?;
            if let Some(tokens) = self.check_and_open(slot, email, password, &mut attempt, origin).await? {
                return Ok(tokens);
            }
        }
        // The account changed during each check, so no password is known to be the current one.
        Err(AccountError::InvalidCredentials)
    }

    /// Looks up an account by an email that breaks the rules: an imported user keeps such an email. Returns
    /// the email as stored, or `None` if no account has it; the broken rule can then be reported.
    ///
    /// # Errors
    /// A database error.
    pub async fn find_imported_email(&self, text: &str) -> Result<Option<Email>, AccountError> {
        let Ok(email) = Email::parse_imported(text) else { return Ok(None) };
        Ok(self.deps.store.find_user_by_email(&email).await?.map(|user| user.email))
    }

    /// Checks the password once, and opens a session. Returns `None` when the account changed after its
    /// password was checked.
    async fn check_and_open(
        &self,
        slot: QueueSlot,
        email: &Email,
        password: &Password,
        attempt: &mut PasswordAttempt,
        origin: &Origin,
    ) -> Result<Option<IssuedTokens>, AccountError> {
        let credentials = self.deps.store.find_credentials(email).await?;
        let hash = credentials.as_ref().map(|credentials| credentials.password.clone());
        let user = credentials.as_ref().map(|credentials| credentials.user.auth_token);
        if let Some(user) = user {
            origin.note.set_user(user);
        }
        let verdict = attempt.compare(slot, password, hash).await?;

        let failure_event = || self.deps.audit.event(AuditKind::AuthnLoginFail, origin).with_user(user);
        match (credentials, verdict) {
            (Some(credentials), Verdict::Correct { needs_rewrite })
                if credentials.user.is_verified && !credentials.is_disabled =>
            {
                let (user, hash) = (&credentials.user, &credentials.password);
                let tokens = self.open_session(user, hash, attempt, origin).await?;
                if tokens.is_some() && attempt.is_from_new_address() {
                    self.notify_of_new_address(&user.email).await;
                }
                if needs_rewrite && tokens.is_some() {
                    self.rewrite_hash(&credentials, password).await;
                }
                Ok(tokens)
            }
            (Some(credentials), Verdict::Correct { .. }) => {
                // Opening a session would settle the attempt. None is opened here.
                attempt.settle().await;
                let refusal = if credentials.is_disabled {
                    AccountError::AccountDisabled
                } else {
                    AccountError::EmailNotVerified
                };
                Err(self.deps.audit.queue_error(failure_event(), refusal))
            }
            (_, Verdict::Wrong) | (None, Verdict::Correct { .. }) => {
                Err(self.deps.audit.queue_error(failure_event(), AccountError::InvalidCredentials))
            }
        }
    }

    /// Mails a notice of a login from a new address, if the settings say so, within the limit of notices to
    /// one mailbox. A failure does not refuse the login.
    async fn notify_of_new_address(&self, email: &Email) {
        if !self.options.notifies_new_address
            || self.count_notice(Subject::mailbox_login_notices(email)).await.is_err()
        {
            return;
        }
        let now = self.deps.env.clock.now();
        let notice = self.deps.mails.notice(MailKind::NewAddressLogin, email, now);
        match self.deps.store.enqueue_notice(notice, now).await {
            Ok(_) => self.deps.mails.wake_outbox(),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Notice of a login from a new address not queued");
            }
        }
    }

    /// Replaces an outdated hash. A failure does not refuse the login: the next login tries again.
    async fn rewrite_hash(&self, credentials: &Credentials, password: &Password) {
        let user = credentials.user.id;
        let hash = match self.deps.passwords.rehash(password).await {
            Ok(hash) => hash,
            Err(error) => {
                return tracing::warn!(user.id = %user, %error, "Outdated password hash not replaced");
            }
        };
        match self.deps.store.rewrite_password(user, &credentials.password, &hash).await {
            Ok(true) => tracing::info!(user.id = %user, "Outdated password hash replaced"),
            Ok(false) => {} // the password has changed since
            Err(error) => {
                tracing::warn!(user.id = %user, error = %error.chain(), "Outdated password hash not replaced");
            }
        }
    }
}
