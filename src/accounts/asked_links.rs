//! Links that somebody asks for by an email alone: another one to prove it, or one to choose a new password.
//!
//! Unknown, verified and unverified addresses are answered alike and after the same work: whether there is anything to mail is found out
//! after the answer, within a second. A crash just then loses the request, and nothing else.

use std::{sync::Arc, time::Duration};

use super::{AccountError, Accounts, audit};
use crate::{
    domain::{AuditKind, Email, MailKind, MailTokenPurpose, Origin},
    store::Subject,
};

/// Within how long after the answer the work is done, when exactly is left to chance: somebody who calls again at once must not
/// feel whether there was anything to do.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// When so much is going on in the background that a call was turned away, it is worth trying again so much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The one reason of the trail that no caller is told.
const NOBODY_TO_MAIL: &str = "NO_USER_TO_MAIL";

impl Accounts {
    /// Mails a new link if an unverified account has this email, which voids the older links.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded or without its database, for every address alike.
    pub async fn resend_verification_email(&self, email: Email, origin: Origin) -> Result<(), AccountError> {
        self.ask_for_link(email, MailTokenPurpose::VerifyEmail, origin).await
    }

    /// Mails a link to choose a new password with if an account has this email, which voids the older ones.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded or without its database, for every address alike.
    pub async fn request_password_reset(&self, email: Email, origin: Origin) -> Result<(), AccountError> {
        self.ask_for_link(email, MailTokenPurpose::ResetPassword, origin).await
    }

    async fn ask_for_link(
        &self,
        email: Email,
        purpose: MailTokenPurpose,
        origin: Origin,
    ) -> Result<(), AccountError> {
        let slot = Arc::clone(&self.background_slots)
            .try_acquire_owned()
            .map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        // Apart, so that whoever asks for the one leaves the other to the mailbox's owner.
        let mails_to = match purpose {
            MailTokenPurpose::ResetPassword => Subject::resets_to(&email),
            MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail => Subject::resends_to(&email),
        };
        self.count_mail(mails_to, &email, &origin).await?;

        let accounts = self.clone();
        let delay = DELAY_MAX.mul_f64(self.with.entropy.fraction());
        self.background.spawn(async move {
            tokio::time::sleep(delay).await;
            accounts.replace_link(&email, purpose, &origin).await;
            drop(slot);
        });
        Ok(())
    }

    async fn replace_link(&self, email: &Email, purpose: MailTokenPurpose, origin: &Origin) {
        let event = self.with.audit.event(AuditKind::AuthnTokenCreated, origin);
        let event = event.of(purpose.as_str());
        let mail = self.new_mail(MailKind::of_purpose(purpose), email, event.at);
        match self.with.store.replace_link(email, purpose, mail, event.clone()).await {
            Ok(Some(user)) => {
                self.with.mail_due.notify_one();
                audit::log(&event.about(Some(user.auth_token)));
            }
            Ok(None) => {
                let event = self.with.audit.event(AuditKind::AuthnTokenCreateFail, origin);
                self.with.audit.note_about(event.of(purpose.as_str()).refused(NOBODY_TO_MAIL), email);
            }
            Err(error) => {
                tracing::error!(error = %error.chain(), "A new link could not be written");
            }
        }
    }
}
