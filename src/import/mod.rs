//! Imports users from a Django backend, and exports users to one.
//!
//! An import consists of rounds. A round first reads the whole source and decides what becomes of each row,
//! in a `Survey` on disk, so that memory use does not grow with the source. If conflicts are open after the
//! first round has decided, the import ends and has changed nothing. Otherwise the round writes the users in
//! small transactions, each user with a record of its row. After a stop the next run continues from these
//! records and hashes no password twice. `--follow` repeats rounds until it is stopped.
//!
//! `records` reads and writes the users of the store with the records of their rows, and `survey` its own
//! database. `password` makes the hashes. The other files hold the rules for rows and users. Start at
//! [`Import::run`].

mod apply;
mod candidate;
mod check;
mod checksums;
mod conflicts;
mod error;
mod export;
mod names;
mod options;
mod progress;
mod read;
mod records;
mod report;
mod round;
mod row;
mod run;
mod store_reader;
mod survey;

use std::sync::Arc;

pub use self::{
    apply::ROWS_PER_TRANSACTION,
    check::Comparison,
    checksums::Checksums,
    error::ImportError,
    export::{Exported, export},
    options::{ImportOptions, OnEmailConflict, OnTokenConflict, OnUsernameConflict},
    progress::Progress,
    records::WrittenUsers,
    report::Report,
    run::{ImportOutcome, Stop},
};
use crate::{domain::Origin, env::Env, password::Passwords, sealing::SealingKeys, store::Store};

/// An import, with all that it needs.
pub struct Import {
    /// Target of the import; `None` if a dry run found no store, or one that is not migrated.
    pub store: Option<Store>,
    /// Hashes plaintext passwords.
    pub passwords: Passwords,
    /// Key for the digests of plaintext passwords.
    pub key: Arc<SealingKeys>,
    /// True if the next run has the same key. Otherwise it must hash plaintext passwords again to find those
    /// that have changed.
    pub is_key_persistent: bool,
    /// Sources of time and randomness.
    pub env: Env,
    /// Actor of the audit events.
    pub origin: Origin,
    /// Decisions of the operator.
    pub options: ImportOptions,
}
