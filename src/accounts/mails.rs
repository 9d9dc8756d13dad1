//! Making a mail, and the link in it.

use std::time::Duration;

use uuid::Builder;

use super::Accounts;
use crate::{
    domain::{Email, MailKind, MailToken, MailTokenPurpose, Timestamp},
    sealing::Purpose,
    store::{NewLink, NewMail},
};

/// How long a mail that only tells of something is tried to be sent.
const NOTICE_LIFETIME: Duration = Duration::from_hours(3 * 24);

impl Accounts {
    /// A new mail: the token of its link leaves this function sealed, and as a digest.
    pub(super) fn new_mail(&self, kind: MailKind, recipient: &Email, now: Timestamp) -> NewMail {
        let (entropy, sealing_key) = (&self.with.entropy, &self.with.sealing_key);
        let link = kind.purpose().map(|_| {
            let token = MailToken::from_random(entropy.bytes());
            let sealed_token = sealing_key.seal(Purpose::MailToken, token.as_bytes(), entropy);
            NewLink { digest: token.digest(), sealed_token }
        });
        let lifetime = match kind.purpose() {
            Some(MailTokenPurpose::VerifyEmail | MailTokenPurpose::ChangeEmail) => {
                self.options.verification_lifetime
            }
            Some(MailTokenPurpose::ResetPassword) => self.options.reset_lifetime,
            None => NOTICE_LIFETIME,
        };
        let id = Builder::from_random_bytes(entropy.bytes()).into_uuid();
        NewMail {
            kind,
            recipient: recipient.clone(),
            link,
            message_id: format!("{id}@{}", self.options.message_id_domain),
            expires_at: now.plus(lifetime),
        }
    }
}
