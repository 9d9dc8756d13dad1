//! Account operations: every business rule of the service, without transport and without SQL.
//!
//! An operation takes parsed domain values and makes a decision. As its last step, the store commits the
//! decision. Nothing here depends on gRPC requests, status codes or database tables. Start at [`Accounts`];
//! the operations of an operator are in [`Administration`].

mod administration;
mod audit;
mod current_password;
mod error;
mod housekeeping;
mod log_in;
mod mails;
mod options;
mod profile;
mod redeem_link;
mod register;
mod request_link;
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
    error::{AccountError, NewPasswordError},
    housekeeping::{Housekeeping, Retention},
    mails::{MailOptions, MailedBy, Mails},
    options::{AccountsOptions, Budget, SessionOptions, ThrottleOptions},
    register::{NewAccount, NewUser, REQUEST_ID_LIFETIME},
    sessions::{ActingUser, IssuedTokens},
    signing_keys::{KeyOptions, Rotation, SigningKeyError, SigningKeys},
};
pub use crate::access_token::PublicKey;
use crate::{
    access_token::AccessTokens,
    domain::{Email, NewPassword, Username},
    env::Env,
    password::Passwords,
    store::Store,
};

/// The dependencies of an [`Accounts`].
#[derive(Clone)]
pub struct AccountsDependencies {
    /// The database.
    pub store: Store,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// Signs and verifies access tokens.
    pub access_tokens: AccessTokens,
    /// Creates mails.
    pub mails: Mails,
    /// Sources of time and randomness.
    pub env: Env,
    /// Records each decision.
    pub audit: AuditTrail,
}

/// Registration, verification, login, and the sessions that follow. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    deps: AccountsDependencies,
    options: Arc<AccountsOptions>,
    background: TaskTracker,
    background_slots: Arc<Semaphore>,
    /// Number of Django links that were refused since the service started.
    refused_old_links: Arc<AtomicU64>,
}

impl Accounts {
    /// Creates the operations with these dependencies and rules.
    #[must_use]
    pub fn new(deps: AccountsDependencies, options: AccountsOptions) -> Self {
        let background_slots = Arc::new(Semaphore::new(options.background_max));
        let background = TaskTracker::new();
        Self {
            deps,
            options: Arc::new(options),
            background,
            background_slots,
            refused_old_links: Arc::default(),
        }
    }

    /// Checks a new password against the policy. If the username and email of its owner are given, a password
    /// that is easy to guess from them is refused.
    ///
    /// # Errors
    /// [`NewPasswordError::Refused`] if the password breaks a rule; [`AccountError::Overloaded`] when too
    /// many passwords wait to be checked or hashed, or [`AccountError::Internal`].
    pub async fn admit_password(
        &self,
        password: String,
        username: Option<Username>,
        email: Option<Email>,
    ) -> Result<NewPassword, NewPasswordError> {
        Ok(self.deps.passwords.admit(self.options.password_policy, password, username, email).await?)
    }

    /// Waits for the background tasks of calls that were answered. To be called once, when no more calls
    /// arrive.
    pub async fn finish(&self) {
        self.background.close();
        self.background.wait().await;
    }
}
