//! Links that are requested with nothing but an email: another verification link, or a link to choose a new
//! password.
//!
//! Unknown, verified and unverified emails get the same response after the same work. The look-up that
//! decides whether a mail is sent runs after the response, within one second. A crash in that second loses
//! the request and nothing else.
//!
//! Any client can make these requests, so their number must not limit the owner of the mailbox. Beyond the
//! limit of the mailbox, a request is merged with the earlier ones: it is answered in the same way, and mails
//! no link if the mailbox has a link of the same kind that is valid and in the first half of its lifetime.
//! The owner therefore always has a link that works, or gets a new one.
//!
//! The number of mails to a mailbox in a day is limited too. While it is reached, the mail of a new link may
//! have to wait, so the new link does not void those that were mailed before.
//!
//! The exception is a caller that mails the link itself ([`MailedBy::Caller`]): its response contains the
//! token, so it reveals whether there is such an account.

use std::{sync::Arc, time::Duration};

use super::{AccountError, Accounts, MailedBy};
use crate::{
    domain::{AuditKind, Email, MailKind, MailToken, MailTokenPurpose, Origin, chain},
    store::{LinkOwner, OlderLinks, RequestedLink, Subject},
};

/// Maximum delay between the response and the work. The delay is random, so that a second call right after
/// the first cannot measure whether there was work to do.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Retry delay for a call that is refused because too many tasks run in the background.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Audit reason of a request that matches no user. No caller receives it.
const NO_USER_TO_MAIL: &str = "NO_USER_TO_MAIL";

/// Audit reason of a request that was merged with an earlier one, beyond the limit of the mailbox. No caller
/// receives it.
const LINK_ALREADY_MAILED: &str = "LINK_ALREADY_MAILED";

/// A request for a link.
struct LinkRequest {
    email: Email,
    purpose: MailTokenPurpose,
    by: MailedBy,
    origin: Origin,
    /// False beyond the limit of the mailbox: the request is then merged with an earlier one, if the link of
    /// that one still works.
    is_within_limit: bool,
}

impl Accounts {
    /// Mails a new verification link if there is an account with this email that is neither verified nor
    /// disabled; older verification links become void. At the limits of the mailbox, an older link may stay
    /// valid, or no new one may be created: see the start of this file. With [`MailedBy::Caller`], returns
    /// the token instead of mailing it, or `None` if no link was created.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`] for the client's address, [`AccountError::Overloaded`] or a database
    /// error. None of them depends on whether there is such an account.
    pub async fn resend_verification_email(
        &self,
        email: Email,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        self.request_link(email, MailTokenPurpose::VerifyEmail, by, origin).await
    }

    /// Mails a link to choose a new password if there is an account with this email that is not disabled;
    /// older links of that kind become void. At the limits of the mailbox, an older link may stay valid, or
    /// no new one may be created: see the start of this file. With [`MailedBy::Caller`], returns the token
    /// instead of mailing it, or `None` if no link was created.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`] for the client's address, [`AccountError::Overloaded`] or a database
    /// error. None of them depends on whether there is such an account.
    pub async fn request_password_reset(
        &self,
        email: Email,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        self.request_link(email, MailTokenPurpose::ResetPassword, by, origin).await
    }

    /// Counts the request, and creates the link after the response. For a caller that mails the link itself,
    /// creates it before the response, which contains the token.
    async fn request_link(
        &self,
        email: Email,
        purpose: MailTokenPurpose,
        by: MailedBy,
        origin: Origin,
    ) -> Result<Option<MailToken>, AccountError> {
        let slot = Arc::clone(&self.background_slots)
            .try_acquire_owned()
            .map_err(|_| AccountError::Overloaded { retry_after: RETRY_AFTER })?;
        // Counted separately, so that requests for one kind of link do not use up the limit of the other.
        // Only links of two kinds are requested here: `ResetPassword` and `VerifyEmail`.
        let mails_to = match purpose {
            MailTokenPurpose::ResetPassword => Subject::mailbox_reset_links(&email),
            MailTokenPurpose::VerifyEmail
            | MailTokenPurpose::ChangeEmail
            | MailTokenPurpose::UndoEmailChange => Subject::mailbox_verification_links(&email),
        };
        let is_within_limit = self.count_requested_link(mails_to, &email, &origin).await?;
        let request = LinkRequest { email, purpose, by, origin, is_within_limit };
        if by == MailedBy::Caller {
            return self.replace_link(&request).await;
        }

        let accounts = self.clone();
        let delay = DELAY_MAX.mul_f64(self.deps.env.entropy.fraction());
        self.background.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Err(error) = accounts.replace_link(&request).await {
                tracing::error!(error = %chain(&error), "Creation of a requested link failed");
                let event = accounts.deps.audit.event(AuditKind::AuthnTokenCreateFail, &request.origin);
                let event = event.with_resource(purpose.as_str()).with_reason(error.audit_reason());
                accounts.deps.audit.queue_event(event);
            }
            drop(slot);
        });
        Ok(None)
    }

    /// Creates the link, or records why there is none. Returns the token if the caller mails the link.
    async fn replace_link(&self, request: &LinkRequest) -> Result<Option<MailToken>, AccountError> {
        let LinkRequest { email, purpose, by, origin, is_within_limit } = request;
        let email = &self.deps.store.stored_email(email).await?;
        let event = self.deps.audit.event(AuditKind::AuthnTokenCreated, origin);
        let event = event.with_resource(by.resource(*purpose));
        let link = self.deps.mails.link(*purpose, email, *by, event.at);
        // A link from before this time is in the second half of its lifetime.
        let kept_since = event.at.minus(self.deps.mails.lifetime(*purpose) / 2);
        let mailed = Subject::mailbox_mails(email, MailKind::of_purpose(*purpose).cause());
        let mailed = self.deps.store.find_counted(mailed, event.at).await?;
        let all = self.deps.store.find_counted(Subject::all_mails(), event.at).await?;
        let older = OlderLinks {
            kept_since: (!is_within_limit).then_some(kept_since),
            mailed_stay_valid: *by == MailedBy::Service
                && self.deps.mails.may_wait(*purpose, mailed, all, event.at),
        };
        let owner = LinkOwner { email, id: None };
        let requested = self.deps.store.request_link(owner, *purpose, link.mail, event, older).await?;
        let (kind, reason) = match requested {
            RequestedLink::Created(_) => {
                self.deps.mails.wake_outbox();
                return Ok(link.for_caller);
            }
            RequestedLink::Kept => (AuditKind::ExcessRateLimitExceeded, LINK_ALREADY_MAILED),
            RequestedLink::NoUser => (AuditKind::AuthnTokenCreateFail, NO_USER_TO_MAIL),
        };
        let event = self.deps.audit.event(kind, origin).with_resource(purpose.as_str()).with_reason(reason);
        self.deps.audit.queue_refusal_about(event, email);
        Ok(None)
    }
}
