//! Decisions of the operator.

use std::time::Duration;

/// What to do if two rows have the same email, or a row has the email of a user in the store. That user
/// always stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmailConflict {
    /// Import nothing.
    Fail,
    /// Keep the verified row. Of several verified rows, or of all rows if none is verified, keep the one with
    /// the smallest id. Leave the others out.
    KeepVerified,
    /// Keep the row with the smallest id. Leave the others out.
    KeepOldest,
}

/// What to do if a row has exactly the username of another row or of a user in the store, or a username that
/// no user can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUsernameConflict {
    /// Import nothing.
    Fail,
    /// Append the id of the row to its username. Of several rows, the one with the smallest id keeps the
    /// username.
    Suffix,
}

/// What to do if a row has the `auth_token` of another row, or of a user that was imported from another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTokenConflict {
    /// Import nothing.
    Fail,
    /// The user keeps it, otherwise the verified row. Of several verified rows, or of all rows if none is
    /// verified, the one with the smallest id keeps it. The others get a new one.
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
