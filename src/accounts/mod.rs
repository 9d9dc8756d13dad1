//! The verbs of an account: every rule of the business, free of transport and SQL.
//!
//! A verb takes parsed values and decides; the store makes its decision last. Neither requests, statuses nor tables are
//! known here. Start at [`Accounts`]; what an operator does to accounts is in [`Administration`].

mod administration;
mod asked_links;
mod audit;
mod current_password;
mod error;
mod housekeeping;
mod log_in;
mod mailed_links;
mod mails;
mod page_tokens;
mod profile;
mod register;
mod sessions;
mod signing_keys;
mod throttle;
mod verify_email;

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use self::{
    administration::{Administration, UserKey},
    audit::AuditTrail,
    error::AccountError,
    housekeeping::{Housekeeping, REQUEST_ID_LIFETIME, Retention},
    mails::{MailOptions, MailedBy, Mails},
    page_tokens::{InvalidPageToken, PageTokens, Place},
    register::{NewAccount, NewUser},
    sessions::{ActingUser, IssuedTokens, SessionOptions},
    signing_keys::{KeyOptions, Rotation, SigningKeyError, SigningKeys},
    throttle::{Budget, ThrottleOptions},
};
pub use crate::access_token::PublicKey;
use crate::{
    access_token::AccessTokens,
    clock::Clock,
    domain::{Email, NewPassword, PasswordRefusal, Timestamp, Username},
    entropy::Entropy,
    password::{Passwords, Policy},
    store::Store,
};

/// How accounts are kept.
#[derive(Debug, Clone)]
pub struct AccountsOptions {
    /// What a new password must be.
    pub password_policy: Policy,
    /// How long sessions last.
    pub sessions: SessionOptions,
    /// How often passwords may be guessed, people register and mails be asked for.
    pub throttle: ThrottleOptions,
    /// Until when links of the Django backend count, which hold an `auth_token`; nothing for never.
    pub accept_auth_token_until: Option<Timestamp>,
    /// How many tasks may go on after their caller was answered, before callers are turned away.
    pub background_max: usize,
}

/// What an [`Accounts`] works with.
#[derive(Clone)]
pub struct Collaborators {
    /// Where accounts are kept.
    pub store: Store,
    /// Who hashes.
    pub passwords: Passwords,
    /// Who signs access tokens and verifies them.
    pub access_tokens: AccessTokens,
    /// Who makes mails.
    pub mails: Mails,
    /// The time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Where decisions are written down.
    pub audit: AuditTrail,
}

/// Registration, verification, login, and the sessions that follow. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    with: Collaborators,
    options: Arc<AccountsOptions>,
    background: TaskTracker,
    background_slots: Arc<Semaphore>,
    /// Links of the Django backend that were refused since the start.
    old_links: Arc<AtomicU64>,
}

impl Accounts {
    /// Accounts kept by these rules.
    #[must_use]
    pub fn new(with: Collaborators, options: AccountsOptions) -> Self {
        let background_slots = Arc::new(Semaphore::new(options.background_max));
        let background = TaskTracker::new();
        Self { with, options: Arc::new(options), background, background_slots, old_links: Arc::default() }
    }

    /// Judges a new password by the policy; the name and email of its owner, where they are known, are not to be in it.
    ///
    /// # Errors
    /// [`AccountError::Overloaded`] when too many passwords wait to be judged or hashed. The refusal of the password
    /// itself is the value inside.
    pub async fn admit_password(
        &self,
        password: String,
        username: Option<Username>,
        email: Option<Email>,
    ) -> Result<Result<NewPassword, PasswordRefusal>, AccountError> {
        Ok(self.with.passwords.admit(self.options.password_policy, password, username, email).await?)
    }

    /// Waits for the work that goes on after its callers were answered; call once no more calls come in.
    pub async fn finish(&self) {
        self.background.close();
        self.background.wait().await;
    }
}
