//! The rules of account operations, as the settings state them.

use std::time::Duration;

use crate::{domain::Timestamp, password::Policy};

/// The rules of account operations, from the settings.
#[derive(Debug, Clone)]
pub struct AccountsOptions {
    /// Requirements for a new password.
    pub password_policy: Policy,
    /// Lifetime and number of sessions.
    pub sessions: SessionOptions,
    /// Limits on password attempts, registrations and requested mails.
    pub throttle: ThrottleOptions,
    /// Verification links of the Django backend, which contain an `auth_token`, are accepted until this time.
    /// `None` refuses them always.
    pub accept_auth_token_until: Option<Timestamp>,
    /// True if the user gets a mail about a login from a client address that is not known for the account.
    pub notifies_new_address: bool,
    /// Maximum number of requests for a link that are processed at the same time, most of them after their
    /// call was answered. Further ones are refused.
    pub background_max: usize,
}

/// The limits of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Time without a refresh after which a session expires.
    pub idle: Duration,
    /// Maximum lifetime of a session, however often it is refreshed.
    pub lifetime: Duration,
    /// Maximum number of sessions of one user. A new session revokes those that were refreshed longest ago.
    pub per_user_max: u32,
}

/// The limits on password attempts, registrations and requested mails.
#[derive(Debug, Clone, Copy)]
pub struct ThrottleOptions {
    /// Consecutive failures on one account before further attempts have to wait; at least 1.
    pub failures_max: u32,
    /// The first wait. Each further failure doubles it.
    pub wait_first: Duration,
    /// The longest wait apart from `pause`.
    pub wait_max: Duration,
    /// Consecutive failures on one account before `pause`.
    pub failures_in_a_row_max: u32,
    /// Time for which an account then refuses all passwords. After it, counting starts from zero.
    pub pause: Duration,
    /// Failures on all accounts together, except those from known addresses and those of users with an access
    /// token. When this number is reached, only logins from known addresses are admitted for the rest of the
    /// window.
    pub total: Budget,
    /// Failures from the address of one end user, if the caller reports the address.
    pub failures_per_address: Budget,
    /// Password attempts from the address of one end user that are in progress. The service sets it to half
    /// of the hashing queue, so that correct logins of one client, which are no failures, leave room for
    /// those of others.
    pub in_progress_per_address_max: u32,
    /// Registrations from the address of one end user.
    pub registrations_from: Budget,
    /// New passwords that are judged for one user, or for one reset link.
    pub new_passwords: Budget,
    /// Links and notices to one mailbox: those that any client can cause, and notices of logins from new
    /// addresses. Counted separately for links that verify an email, for links to choose a new password, and
    /// for notices. Beyond it, requests for a link are merged, and no notice is mailed. It is also the limit
    /// on the username changes and on the email changes that one user requests.
    pub resends_to: Budget,
    /// Requests for a link from the address of one end user.
    pub resends_from: Budget,
    /// Time after the start of a session for which the end user's address counts as known for the user.
    pub known_address_lifetime: Duration,
}

/// A maximum number per time window. The window begins with the first event in it.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The maximum number; at least 1.
    pub max: u32,
    /// Length of the window.
    pub window: Duration,
}

/// How many different events are recorded separately in a minute. Events beyond a limit are merged. The
/// limits are separate, so that no caller can hide what concerns others.
#[derive(Debug, Clone, Copy)]
pub struct AuditLimits {
    /// Different refusals of callers that are not authenticated, by kind, reason and network.
    pub unauthenticated_max: usize,
    /// Different events of one caller that are about no account.
    pub per_caller_max: usize,
    /// Different refusals about one account, and as many different reads of it.
    pub per_account_max: usize,
}
