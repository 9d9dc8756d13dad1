//! Making a new link.

use uuid::Builder;

use super::Accounts;
use crate::{
    domain::{MailToken, Timestamp},
    sealing::Purpose,
    store::VerificationMail,
};

impl Accounts {
    /// A new link: its token leaves this function sealed, and as a digest.
    pub(super) fn new_verification_mail(&self, now: Timestamp) -> VerificationMail {
        let token = MailToken::from_random(self.with.entropy.bytes());
        let id = Builder::from_random_bytes(self.with.entropy.bytes()).into_uuid();
        VerificationMail {
            digest: token.digest(),
            sealed_token: self.with.sealing_key.seal(
                Purpose::MailToken,
                token.as_bytes(),
                &self.with.entropy,
            ),
            message_id: format!("{id}@{}", self.options.message_id_domain),
            expires_at: now.plus(self.options.verification_lifetime),
        }
    }
}
