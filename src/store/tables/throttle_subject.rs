//! The subjects that the throttle counts, stored as digests in `core_throttle` and `core_known_address`.

use sha2::{Digest, Sha256};

use crate::domain::{ClientAddress, Email};

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
    pub fn password_of(email: &Email) -> Self {
        Self { kind: ACCOUNT_PASSWORD, digest: Sha256::digest(email.as_str()).into() }
    }

    /// Password attempts for an account from a known address of its owner. They are counted separately, so
    /// that guesses from other addresses do not block the owner there.
    #[must_use]
    pub const fn password_at(known: &KnownAddress) -> Self {
        Self { kind: ACCOUNT_PASSWORD_AT, digest: known.address }
    }

    /// Requests for a verification or email change link to this mailbox.
    #[must_use]
    pub fn resends_to(email: &Email) -> Self {
        Self { kind: "resends-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Requests for a password reset link to this mailbox.
    #[must_use]
    pub fn resets_to(email: &Email) -> Self {
        Self { kind: "resets-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Notices to this mailbox. They are counted separately from requested links, so that an event caused by
    /// another user cannot use up the mailbox owner's budget for links.
    #[must_use]
    pub fn notices_to(email: &Email) -> Self {
        Self { kind: "notices-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Password attempts for any account from this address.
    #[must_use]
    pub fn passwords_from(client: ClientAddress) -> Self {
        Self { kind: "passwords-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Registrations from this address.
    #[must_use]
    pub fn registrations_from(client: ClientAddress) -> Self {
        Self { kind: "registrations-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Requests for any link from this address.
    #[must_use]
    pub fn resends_from(client: ClientAddress) -> Self {
        Self { kind: "resends-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Password attempts for any account from any address.
    #[must_use]
    pub const fn any_password() -> Self {
        Self { kind: "any-password", digest: [0; 32] }
    }

    /// Returns the primary key of the row.
    pub(super) fn key(&self) -> (&'static str, Vec<u8>) {
        (self.kind, self.digest.to_vec())
    }
}

/// The kind of [`Subject::password_of`].
pub(super) const ACCOUNT_PASSWORD: &str = "account-password";

/// The kind of [`Subject::password_at`].
pub(super) const ACCOUNT_PASSWORD_AT: &str = "account-password-at";

/// An account, and a client address from which its owner logged in, as the digests in `core_known_address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAddress {
    pub(super) account: [u8; 32],
    pub(super) address: [u8; 32],
}

impl KnownAddress {
    /// Computes the digests for the account with this email.
    #[must_use]
    pub fn new(email: &Email, client: ClientAddress) -> Self {
        let account = Subject::password_of(email).digest;
        // The account is part of the digest, so one precomputed table of all addresses does not reverse the
        // digests of all accounts.
        let address = Sha256::new().chain_update(account).chain_update(client.octets()).finalize();
        Self { account, address: address.into() }
    }
}
