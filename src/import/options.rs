//! Decisions of the operator.

use std::time::Duration;

/// What to do if two rows have the same email, or a row has the email of a user in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmailConflict {
    /// Import nothing.
    Fail,
    /// Keep the verified row, or the one with the smallest id if none or several are verified. Leave the
    /// others out.
    KeepVerified,
    /// Keep the row with the smallest id. Leave the others out.
    KeepOldest,
}

/// What to do if two rows have exactly the same username, or if no user can have the username of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUsernameConflict {
    /// Import nothing.
    Fail,
    /// Append the id of the row to every username but the first.
    Suffix,
}

/// What to do if two rows have the same `auth_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTokenConflict {
    /// Import nothing.
    Fail,
    /// The verified row keeps it, or the one with the smallest id if none or several are verified. The others
    /// get a new one.
    Renew,
}

/// Options of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// Decision on emails.
    pub on_email_conflict: OnEmailConflict,
    /// Decision on usernames.
    pub on_username_conflict: OnUsernameConflict,
    /// Decision on `auth_token`s.
    pub on_token_conflict: OnTokenConflict,
    /// True if the import only reads, decides and reports.
    pub dry_run: bool,
    /// Pause between two rounds; `None` for a single round.
    pub follow_every: Option<Duration>,
    /// Number of plaintext passwords that are hashed and then written together: the work that a killed
    /// process loses.
    pub hashes_per_batch: usize,
}
