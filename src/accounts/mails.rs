//! Making a mail, and the link in it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use uuid::Builder;

use crate::{
    domain::{Email, MailKind, MailToken, MailTokenPurpose, Timestamp},
    entropy::Entropy,
    sealing::{Purpose, SealingKey},
    store::{Delivery, NewMail},
};

/// How long a mail that only tells of something is tried to be sent.
const NOTICE_LIFETIME: Duration = Duration::from_hours(3 * 24);

/// How mails are made.
#[derive(Debug, Clone)]
pub struct MailOptions {
    /// How long a link that proves an address is good for.
    pub verification_lifetime: Duration,
    /// How long a link to choose a new password with is good for.
    pub reset_lifetime: Duration,
    /// The domain in the Message-ID of our mails.
    pub message_id_domain: String,
}

/// Who mails a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailedBy {
    /// This service.
    Service,
    /// The caller, who is given the token and must have the right to it.
    Caller,
}

impl MailedBy {
    /// What the trail has of a link for this purpose.
    pub(super) const fn resource(self, purpose: MailTokenPurpose) -> &'static str {
        match (self, purpose) {
            (Self::Service, purpose) => purpose.as_str(),
            (Self::Caller, MailTokenPurpose::VerifyEmail) => "verify_email, mailed by the caller",
            (Self::Caller, MailTokenPurpose::ResetPassword) => "reset_password, mailed by the caller",
            (Self::Caller, MailTokenPurpose::ChangeEmail) => "change_email, mailed by the caller",
        }
    }
}

/// A link to be written down.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// What is written with it.
    pub mail: NewMail,
    /// What the caller is given, where it mails the link itself.
    pub for_caller: Option<MailToken>,
}

/// Makes mails. Clones ring the same bell.
#[derive(Clone)]
pub struct Mails {
    options: Arc<MailOptions>,
    sealing_key: Arc<SealingKey>,
    entropy: Entropy,
    due: Arc<Notify>,
}

impl Mails {
    /// Mails whose tokens wait under this key; `due` is rung when there is a new one to send.
    #[must_use]
    pub fn new(
        options: MailOptions,
        sealing_key: Arc<SealingKey>,
        entropy: Entropy,
        due: Arc<Notify>,
    ) -> Self {
        Self { options: Arc::new(options), sealing_key, entropy, due }
    }

    /// Rings for a mail that was written.
    pub(super) fn ring(&self) {
        self.due.notify_one();
    }

    /// A mail that only tells of something.
    pub(super) fn notice(&self, kind: MailKind, recipient: &Email, now: Timestamp) -> NewMail {
        let delivery = Delivery::Service { message_id: self.message_id(), sealed_token: None };
        let expires_at = now.plus(NOTICE_LIFETIME);
        NewMail { kind, recipient: recipient.clone(), digest: None, delivery, expires_at }
    }

    /// A new link. Its token leaves this function as a digest and, for this service to mail, sealed; only a caller who mails it is given it.
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
                let sealed = self.sealing_key.seal(Purpose::MailToken, token.as_bytes(), &self.entropy);
                Delivery::Service { message_id: self.message_id(), sealed_token: Some(sealed) }
            }
            MailedBy::Caller => Delivery::Caller,
        };
        let lifetime = match purpose {
            MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail => {
                self.options.verification_lifetime
            }
            MailTokenPurpose::ResetPassword => self.options.reset_lifetime,
        };
        let mail = NewMail {
            kind: MailKind::of_purpose(purpose),
            recipient: recipient.clone(),
            digest: Some(token.digest()),
            delivery,
            expires_at: now.plus(lifetime),
        };
        Link { mail, for_caller: (by == MailedBy::Caller).then_some(token) }
    }

    fn message_id(&self) -> String {
        let id = Builder::from_random_bytes(self.entropy.bytes()).into_uuid();
        format!("{id}@{}", self.options.message_id_domain)
    }
}
