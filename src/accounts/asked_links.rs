//! Links that somebody asks for by an email alone: another one to prove it, or one to choose a new password.
//!
//! Unknown, verified and unverified addresses are answered alike and after the same work: whether there is anything to mail is found out
//! after the answer, within a second. A crash just then loses the request, and nothing else.

use std::{sync::Arc, time::Duration};

use super::{AccountError, Accounts, MailedBy, audit};
use crate::{
    domain::{AuditKind, Email, MailToken, MailTokenPurpose, Origin},
    store::{Subject, chain},
};

/// Within how long after the answer the work is done, when exactly is left to chance: somebody who calls again at once must not
/// feel whether there was anything to do.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// When so much is going on in the background that a call was turned away, it is worth trying again so much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The one reason of the trail that no caller is told.
const NOBODY_TO_MAIL: &str = "NO_USER_TO_MAIL";

impl Accounts {
    /// Mails a new link if an unverified account has this email, which voids the older links. A caller who mails it itself is given its token, and
    /// learns by it whether there is such an account.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded or without its database, for every address alike.
    pub async fn resend_verification_email(
        &self,
        email: Email,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        self.ask_for_link(email, MailTokenPurpose::VerifyEmail, by, origin).await
    }

    /// Mails a link to choose a new password with if an account has this email, which voids the older ones; to a caller who mails it itself as
    /// above.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded or without its database, for every address alike.
    pub async fn request_password_reset(
        &self,
        email: Email,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        self.ask_for_link(email, MailTokenPurpose::ResetPassword, by, origin).await
    }

    async fn ask_for_link(
        &self,
        email: Email,
        purpose: MailTokenPurpose,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let slot = Arc::clone(&self.background_slots)
            .try_acquire_owned()
            .map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        // Apart, so that whoever asks for the one leaves the other to the mailbox's owner.
        let mails_to = match purpose {
            MailTokenPurpose::ResetPassword => Subject::resets_to(&email),
            MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail => Subject::resends_to(&email),
        };
        self.count_mail(mails_to, &email, &origin).await?;
        if by == MailedBy::Caller {
            return self.replace_link(&email, purpose, by, &origin).await;
        }

        let accounts = self.clone();
        let delay = DELAY_MAX.mul_f64(self.with.entropy.fraction());
        self.background.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Err(error) = accounts.replace_link(&email, purpose, by, &origin).await {
                tracing::error!(error = %chain(&error), "A new link could not be written");
            }
            drop(slot);
        });
        Ok(None)
    }

    async fn replace_link(
        &self,
        email: &Email,
        purpose: MailTokenPurpose,
        by: MailedBy,
        origin: &Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let event = self.with.audit.event(AuditKind::AuthnTokenCreated, origin);
        let event = event.of(by.resource(purpose));
        let link = self.with.mails.link(purpose, email, by, event.at);
        let Some(user) =
            self.with.store.replace_link((email, None), purpose, link.mail, event.clone()).await?
        else {
            let event = self.with.audit.event(AuditKind::AuthnTokenCreateFail, origin);
            self.with.audit.note_about(event.of(purpose.as_str()).refused(NOBODY_TO_MAIL), email);
            return Ok(None);
        };
        self.with.mails.ring();
        audit::log(&event.about(Some(user.auth_token)));
        Ok(link.for_caller)
    }
}
