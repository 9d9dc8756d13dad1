//! Creation of mails and of the links in them.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use uuid::Builder;

use crate::{
    domain::{Email, MailKind, MailToken, MailTokenPurpose, Timestamp},
    entropy::Entropy,
    sealing::{Purpose, SealingKeys},
    store::{Attempts, Delivery, NewMail},
};

/// Time for which delivery of a mail without a link (a notice) is retried.
const NOTICE_LIFETIME: Duration = Duration::from_hours(3 * 24);

/// The options for new mails.
#[derive(Debug, Clone)]
pub struct MailOptions {
    /// Lifetime of a link that verifies an email or confirms an email change.
    pub verification_lifetime: Duration,
    /// Lifetime of a link to choose a new password.
    pub reset_lifetime: Duration,
    /// Lifetime of a link that undoes an email change.
    pub undo_lifetime: Duration,
    /// The domain in the Message-ID of each mail.
    pub message_id_domain: String,
}

/// The sender of a mailed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailedBy {
    /// This service.
    Service,
    /// The caller: it receives the token of the link and must be authorized to receive it.
    Caller,
}

impl MailedBy {
    /// Returns the audit `resource` of a link for this purpose.
    pub(super) const fn resource(self, purpose: MailTokenPurpose) -> &'static str {
        match (self, purpose) {
            (Self::Service, purpose) => purpose.as_str(),
            (Self::Caller, MailTokenPurpose::VerifyEmail) => "verify_email, mailed by the caller",
            (Self::Caller, MailTokenPurpose::ResetPassword) => "reset_password, mailed by the caller",
            (Self::Caller, MailTokenPurpose::ChangeEmail) => "change_email, mailed by the caller",
            (Self::Caller, MailTokenPurpose::UndoEmailChange) => "undo_email_change, mailed by the caller",
        }
    }
}

/// A new link that is not stored yet.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// The mail to store, with the digest of the token.
    pub mail: NewMail,
    /// The token, if the caller mails the link.
    pub for_caller: Option<MailToken>,
}

/// Creates mails. Clones wake up the same outbox.
#[derive(Clone)]
pub struct Mails {
    options: Arc<MailOptions>,
    sealing_keys: Arc<SealingKeys>,
    entropy: Entropy,
    due: Arc<Notify>,
    /// Set by [`Mails::with_daily_limits`]: the most mails with requested links to one mailbox, and the most
    /// mails in all.
    daily_limits: (u32, u32),
}

impl Mails {
    /// Creates mails whose tokens are stored encrypted under these keys. `due` is notified when there is a
    /// new mail to send.
    #[must_use]
    pub fn new(
        options: MailOptions,
        sealing_keys: Arc<SealingKeys>,
        entropy: Entropy,
        due: Arc<Notify>,
    ) -> Self {
        let options = Arc::new(options);
        Self { options, sealing_keys, entropy, due, daily_limits: (u32::MAX, u32::MAX) }
    }

    /// States the outbox's daily limits: on mails with requested links to one mailbox, and on all mails.
    /// Beyond them, the outbox lets a mail wait; a new link then does not void those that were mailed before.
    #[must_use]
    pub fn with_daily_limits(self, per_mailbox: u32, total: u32) -> Self {
        Self { daily_limits: (per_mailbox, total), ..self }
    }

    /// The window of the daily limits.
    const DAY: Duration = Duration::from_hours(24);

    /// True if the next mail with a requested link for this purpose may have to wait. `to_mailbox` counts the
    /// earlier ones to its mailbox, and `all` all mails.
    pub(super) fn may_wait(
        &self,
        purpose: MailTokenPurpose,
        to_mailbox: Option<Attempts>,
        all: Option<Attempts>,
        now: Timestamp,
    ) -> bool {
        let (per_mailbox, total) = self.daily_limits;
        let is_reached = |sent, max| {
            Attempts::in_window(sent, Self::DAY, now).is_some_and(|sent: Attempts| sent.count >= max)
        };
        let total = MailKind::of_purpose(purpose).daily_max(total);
        is_reached(to_mailbox, per_mailbox) || is_reached(all, total)
    }

    /// Returns the lifetime of a link for this purpose. That of a link that verifies an email is also the
    /// time for which an unverified registration holds its email.
    pub(super) fn lifetime(&self, purpose: MailTokenPurpose) -> Duration {
        match purpose {
            MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail => {
                self.options.verification_lifetime
            }
            MailTokenPurpose::ResetPassword => self.options.reset_lifetime,
            MailTokenPurpose::UndoEmailChange => self.options.undo_lifetime,
        }
    }

    /// Notifies the outbox of a mail that was committed.
    pub(super) fn wake_outbox(&self) {
        self.due.notify_one();
    }

    /// Creates a mail without a link, which only notifies its recipient.
    pub(super) fn notice(&self, kind: MailKind, recipient: &Email, now: Timestamp) -> NewMail {
        let delivery = Delivery::Service { message_id: self.message_id(), sealed_token: None };
        let expires_at = now.plus(NOTICE_LIFETIME);
        NewMail { kind, recipient: recipient.clone(), digest: None, delivery, expires_at }
    }

    /// Creates a link. [`Link::mail`] contains its token only as a digest and, if this service mails the
    /// link, encrypted. The token itself is returned only for a caller that mails the link.
    pub(super) fn link(
        &self,
        purpose: MailTokenPurpose,
        recipient: &Email,
        by: MailedBy,
        now: Timestamp,
    ) -> Link {
        let token = MailToken::from_random(self.entropy.bytes());
        let delivery = match by {
            MailedBy::Service => {
                let message_id = self.message_id();
                let purpose = Purpose::MailToken { message_id: &message_id, recipient: recipient.as_str() };
                let sealed = self.sealing_keys.seal(purpose, token.as_bytes(), &self.entropy);
                Delivery::Service { message_id, sealed_token: Some(sealed) }
            }
            MailedBy::Caller => Delivery::Caller,
        };
        let mail = NewMail {
            kind: MailKind::of_purpose(purpose),
            recipient: recipient.clone(),
            digest: Some(token.digest()),
            delivery,
            expires_at: now.plus(self.lifetime(purpose)),
        };
        Link { mail, for_caller: (by == MailedBy::Caller).then_some(token) }
    }

    fn message_id(&self) -> String {
        let id = Builder::from_random_bytes(self.entropy.bytes()).into_uuid();
        format!("{id}@{}", self.options.message_id_domain)
    }
}
