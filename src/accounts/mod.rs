//! Account operations: every business rule of the service, without transport and without SQL.
//!
//! An operation takes parsed domain values and makes a decision. As its last step, the store commits the
//! decision. Nothing here depends on gRPC requests, status codes or database tables. Start at [`Accounts`];
//! the operations of an operator are in [`Administration`].

mod administration;
mod attempt_limits;
mod audit;
mod audit_queue;
mod clock_watch;
mod counted_requests;
mod current_password;
mod error;
mod housekeeping;
mod log_in;
mod mails;
mod options;
mod password_attempts;
mod profile;
mod redeem_link;
mod register;
mod request_link;
mod resealing;
mod sessions;
mod signing_keys;
mod stored_hashes;
mod throttle;
mod verify_email;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    administration::{Administration, UserKey},
    audit::AuditTrail,
    clock_watch::ClockWatch,
    error::{AccountError, NewPasswordError},
    housekeeping::{Housekeeping, Retention},
    mails::{MailOptions, MailedBy, Mails},
    options::{AccountsOptions, AuditLimits, Budget, SessionOptions, ThrottleOptions},
    register::{NewAccount, NewUser, REQUEST_ID_LIFETIME},
    resealing::{Resealed, Resealing, SealedBy},
    sessions::{ActingUser, IssuedTokens},
    signing_keys::{KeyOptions, REVOCATION_DELAY, Rotation, SigningKeyError, SigningKeys},
    stored_hashes::StoredHashes,
    verify_email::OldLinks,
};
pub use crate::access_token::PublicKey;
use crate::{
    database::Cause,
    domain::{Email, NewPassword, PasswordRefusal, Username},
    env::Env,
    password::Passwords,
    store::Store,
};

/// Maximum number of calls that run detached, and separately of password attempts that are not settled yet.
/// More than the longest hashing queue (10,000), so that a full queue refuses calls first. If all of them
/// wait for the database, they take some 20 MiB.
const DETACHED_MAX: usize = 16_384;

/// Retry delay for a call that is refused because too many run detached.
const DETACHED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The dependencies of an [`Accounts`].
#[derive(Clone)]
pub struct AccountsDependencies {
    /// The database.
    pub store: Store,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// The access tokens, and the keys that sign and verify them.
    pub signing_keys: SigningKeys,
    /// Creates mails.
    pub mails: Mails,
    /// Sources of time and randomness.
    pub env: Env,
    /// Says whether a registration may delete an abandoned one.
    pub clock_watch: ClockWatch,
    /// Records each decision.
    pub audit: AuditTrail,
}

/// The operations that callers request for users: registration, verification, login, sessions, and changes of
/// the account. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    deps: AccountsDependencies,
    options: Arc<AccountsOptions>,
    /// The tasks of calls, which do not end when their callers go.
    background: TaskTracker,
    /// Bounds the requests for a link, most of which are processed after the response.
    background_slots: Arc<Semaphore>,
    /// Bounds the calls that run detached.
    detached_slots: Arc<Semaphore>,
    /// Bounds the password attempts that are not settled yet.
    attempt_slots: Arc<Semaphore>,
    /// Cancelled when the service stops.
    stopping: CancellationToken,
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
            detached_slots: Arc::new(Semaphore::new(DETACHED_MAX)),
            attempt_slots: Arc::new(Semaphore::new(DETACHED_MAX)),
            stopping: CancellationToken::new(),
            refused_old_links: Arc::default(),
        }
    }

    /// Checks the length of a new password. The operation that sets it also judges whether it is easy to
    /// guess.
    ///
    /// # Errors
    /// [`PasswordRefusal`] if the length breaks a rule.
    pub fn parse_new_password(&self, text: String) -> Result<NewPassword, PasswordRefusal> {
        NewPassword::parse(text, self.options.password_policy.length_min_characters)
    }

    /// Refuses a new password that is easy to guess, also from the username and email of its owner. Judging
    /// takes the time of a hashing thread, so the caller must have counted the password against a limit
    /// before.
    async fn judge_password(
        &self,
        password: &NewPassword,
        username: &Username,
        email: &Email,
    ) -> Result<(), NewPasswordError> {
        let policy = self.options.password_policy;
        Ok(self.deps.passwords.judge(policy, password.clone(), username.clone(), email.clone()).await?)
    }

    /// Runs an operation in a task of its own, which goes on if the caller's future is dropped: what it
    /// decides is written and recorded whether or not the caller waits. `work` receives a clone of `self`,
    /// and a token that is cancelled when the caller no longer waits.
    async fn run_detached<T, E, F>(&self, work: impl FnOnce(Self, CancellationToken) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<AccountError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let permit = Arc::clone(&self.detached_slots).try_acquire_owned();
        let permit = permit.map_err(|_| AccountError::Overloaded { retry_after: DETACHED_RETRY_AFTER })?;
        let caller_gone = CancellationToken::new();
        // Cancels the token when the caller drops this future.
        let _waiting = caller_gone.clone().drop_guard();
        let work = work(self.clone(), caller_gone);
        let task = self.background.spawn(async move {
            let result = work.await;
            drop(permit);
            result
        });
        task.await.map_err(|error| AccountError::Internal(Cause::new(error)))?
    }

    /// Returns the audit trail.
    #[must_use]
    pub const fn audit(&self) -> &AuditTrail {
        &self.deps.audit
    }

    /// Waits for the tasks of calls, also of those whose callers have gone. Must be called once, when no more
    /// calls arrive.
    pub async fn finish(&self) {
        self.stopping.cancel();
        self.background.close();
        self.background.wait().await;
    }
}
