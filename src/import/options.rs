//! What the operator decides.

use std::time::Duration;

/// Two rows with one email, or a row with the email of a user who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmailConflict {
    /// Nothing is imported.
    Fail,
    /// The verified row stays, of several the older one; the others are left out.
    KeepVerified,
    /// The row with the smallest key stays; the others are left out.
    KeepOldest,
}

/// Two rows with one name, letter by letter, or a name that no user can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUsernameConflict {
    /// Nothing is imported.
    Fail,
    /// All but the first get their row's number behind their name.
    Suffix,
}

/// Two rows with one `auth_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTokenConflict {
    /// Nothing is imported.
    Fail,
    /// The verified row keeps it, of several the older one; the others get a new one.
    Renew,
}

/// How an import decides.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// On emails.
    pub on_email_conflict: OnEmailConflict,
    /// On names.
    pub on_username_conflict: OnUsernameConflict,
    /// On `auth_token`s.
    pub on_token_conflict: OnTokenConflict,
    /// Whether everything is found out and nothing is written.
    pub dry_run: bool,
    /// How long after a round the next one begins; nothing for one round.
    pub follow_every: Option<Duration>,
    /// How many plaintext passwords are hashed and written together: what a kill costs.
    pub hashes_at_once: usize,
}
