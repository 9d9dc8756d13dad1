//! Another link for somebody who lost the first.

use std::{sync::Arc, time::Duration};

use super::{AccountError, Accounts};
use crate::domain::{ClientAddress, Email};

/// When so much is going on in the background that a call was turned away, it is worth trying again so much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Accounts {
    /// Mails a new link if an unverified account has this email, which voids the older links.
    ///
    /// Unknown, verified and unverified addresses are answered alike and after the same work: whether there is anything to
    /// mail is found out after the answer. A crash just then loses the request, and nothing else.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], or that the service is overloaded or without its database, for every address alike.
    pub async fn resend_verification_email(
        &self,
        email: Email,
        client: Option<ClientAddress>,
    ) -> Result<(), AccountError> {
        let slot = Arc::clone(&self.background_slots)
            .try_acquire_owned()
            .map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        self.count_resend(&email, client).await?;

        let accounts = self.clone();
        self.background.spawn(async move {
            accounts.replace_verification(&email).await;
            drop(slot);
        });
        Ok(())
    }

    async fn replace_verification(&self, email: &Email) {
        let now = self.with.clock.now();
        let mail = self.new_verification_mail(now);
        match self.with.store.replace_verification(email, mail, now).await {
            Ok(true) => self.with.mail_due.notify_one(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %error.chain(), "A new verification link could not be written");
            }
        }
    }
}
