//! The subjects that the throttle counts, stored as digests in `core_throttle` and `core_password_attempt`.

use sha2::{Digest, Sha256};

use super::known_addresses::LoginAddress;
use crate::domain::{AuthToken, ClientAddress, Email, MailCause, MailTokenDigest};

/// What attempts are counted for: a kind of attempt, and the account, mailbox or address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub(super) kind: &'static str,
    pub(super) digest: [u8; 32],
}

impl Subject {
    /// Password attempts for the account with this email, whether it exists or not. Only a digest is stored,
    /// so a mistyped email is not kept.
    #[must_use]
    pub fn account_password(email: &Email) -> Self {
        Self { kind: ACCOUNT_PASSWORD, digest: Sha256::digest(email.as_str()).into() }
    }

    /// Password attempts for an account from one known address of its owner. They are counted separately, so
    /// that guesses from other addresses do not block the owner there.
    #[must_use]
    pub const fn account_password_at_address(known: &LoginAddress) -> Self {
        Self { kind: ACCOUNT_PASSWORD_AT_ADDRESS, digest: known.digest }
    }

    /// Password attempts for an account from all known addresses of its owner together.
    #[must_use]
    pub fn account_password_at_known_addresses(user: AuthToken) -> Self {
        Self { kind: "account-password-known", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// Attempts at the current password by this user with a verified access token.
    #[must_use]
    pub fn acting_user_password(user: AuthToken) -> Self {
        Self { kind: "account-password-acting", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// New passwords that are judged for this user after the correct current password.
    #[must_use]
    pub fn user_new_passwords(user: AuthToken) -> Self {
        Self { kind: "new-passwords-of", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// New passwords that are judged for this reset link. They are counted separately, so that an intruder
    /// who has the current password cannot use up the budget of the owner's link.
    #[must_use]
    pub const fn link_new_passwords(link: MailTokenDigest) -> Self {
        Self { kind: "new-passwords-by", digest: *link.as_bytes() }
    }

    /// Requests for a verification link to this mailbox, which any client can make.
    #[must_use]
    pub fn mailbox_verification_links(email: &Email) -> Self {
        Self { kind: "resends-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Requests for a password reset link to this mailbox, which any client can make.
    #[must_use]
    pub fn mailbox_reset_links(email: &Email) -> Self {
        Self { kind: "resets-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Notices to this mailbox about what unauthenticated callers did, such as a registration with its email.
    #[must_use]
    pub fn mailbox_notices(email: &Email) -> Self {
        Self { kind: "notices-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Notices to this mailbox about logins from new addresses. They are counted separately from those that
    /// any client can cause.
    #[must_use]
    pub fn mailbox_login_notices(email: &Email) -> Self {
        Self { kind: "login-notices-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Mails with this cause to this address.
    #[must_use]
    pub fn mailbox_mails(email: &Email, cause: MailCause) -> Self {
        let kind = match cause {
            MailCause::EnteredAddress => "unrequested-mails-to",
            MailCause::LinkRequest => "requested-mails-to",
            MailCause::AccountEvent => "mails-to",
            MailCause::EmailChange => "undo-mails-to",
        };
        Self { kind, digest: Sha256::digest(email.as_str()).into() }
    }

    /// Mails to all addresses together.
    #[must_use]
    pub const fn all_mails() -> Self {
        Self { kind: "any-mail", digest: [0; 32] }
    }

    /// Username changes by this user. Only requests with the user's access token count, so that no other
    /// client can use up the limit.
    #[must_use]
    pub fn user_username_changes(user: AuthToken) -> Self {
        Self { kind: "username-changes-of", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// Requests of this user for an email that another user has.
    #[must_use]
    pub fn user_taken_emails(user: AuthToken) -> Self {
        Self { kind: "taken-emails-of", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// Email changes that this user requested. Only requests with the user's access token and password count.
    #[must_use]
    pub fn user_email_changes(user: AuthToken) -> Self {
        Self { kind: "email-changes-of", digest: Sha256::digest(user.as_uuid().as_bytes()).into() }
    }

    /// Password attempts for any account from this address.
    #[must_use]
    pub fn address_passwords(client: ClientAddress) -> Self {
        Self { kind: "passwords-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Attempts at the current password from this address, by users with access tokens.
    #[must_use]
    pub fn address_acting_users(client: ClientAddress) -> Self {
        Self { kind: "acting-users-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Registrations from this address.
    #[must_use]
    pub fn address_registrations(client: ClientAddress) -> Self {
        Self { kind: "registrations-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Requests for any link from this address.
    #[must_use]
    pub fn address_link_requests(client: ClientAddress) -> Self {
        Self { kind: "resends-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Password attempts for any account from any address.
    #[must_use]
    pub const fn all_passwords() -> Self {
        Self { kind: "any-password", digest: [0; 32] }
    }

    /// Returns the primary key of the row.
    pub(super) fn key(&self) -> (&'static str, Vec<u8>) {
        (self.kind, self.digest.to_vec())
    }
}

/// The kind of [`Subject::account_password`].
pub(super) const ACCOUNT_PASSWORD: &str = "account-password";

/// The kind of [`Subject::account_password_at_address`].
pub(super) const ACCOUNT_PASSWORD_AT_ADDRESS: &str = "account-password-at";
