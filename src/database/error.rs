//! Errors of the database, grouped by what a caller can do about them.

use std::{error::Error, path::Path, sync::Arc};

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use super::sql_state::{Remedy, SqlState};
use crate::{domain::chain, input_file::ShownPath};

/// The unique constraints that callers handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another user has this email.
    UserEmail,
    /// Another user has this username, or one with the same username key.
    UserUsername,
    /// A registration with this request id exists.
    RegistrationRequest,
}

/// The reason why an operation on the database failed. The operation changed nothing, with one exception:
/// after [`DatabaseError::Unavailable`] or [`DatabaseError::Damaged`] from a write it is unknown whether the
/// write was committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// The row violates a unique constraint.
    #[error("another row already has this value ({0:?})")]
    NotUnique(Constraint),
    /// The database cannot be reached, did not answer in time, or cannot write.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// The engine cannot read or write a page of the database, or found a page invalid. A retry does not
    /// help: the operator must restore the database.
    #[error("the database is damaged, or its disk fails")]
    Damaged(#[source] Cause),
    /// The queue of the database is full; the operation was not started.
    #[error("the queue of the database is full; retry later")]
    Overloaded,
    /// A row holds a value that this release cannot read.
    #[error("cannot read a row of {table}: invalid {column}")]
    Corrupt {
        /// The table of the row.
        table: &'static str,
        /// The column whose value is invalid.
        column: &'static str,
    },
    /// Any other failure: a defect of the service or of the schema.
    #[error("the database rejected a statement")]
    Internal(#[source] Cause),
}

/// The source of a [`DatabaseError`]. It is shared, because one failed query may fail many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error of a library, or a message.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(source.into()))
    }
}

impl DatabaseError {
    /// Returns the error and its sources in one line, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// True if the server closed the connection or will do so. diesel itself marks the connection as broken
    /// only at its next use.
    pub(crate) fn is_connection_lost(&self) -> bool {
        let Self::Unavailable(cause) = self else { return false };
        let text = chain(cause);
        match SqlState::find(&text) {
            Some(state) => state.is_connection_lost(),
            None => contains_any(&text, &CONNECTION_LOST),
        }
    }

    /// Returns what has to be done before the same transaction may succeed; `None` if it would fail again, or
    /// if it may have been committed.
    pub(super) fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Unavailable(cause) | Self::Internal(cause) => SqlState::find(&chain(cause))?.remedy(),
            _ => None,
        }
    }

    /// True if the server refused a write because it is a replica or accepts only reads.
    pub(super) fn is_read_only(&self) -> bool {
        let Self::Unavailable(cause) = self else { return false };
        SqlState::find(&chain(cause)).is_some_and(SqlState::is_read_only)
    }

    /// Turns [`Self::Internal`] into [`Self::Unavailable`]: the connection of the statement is closed, so the
    /// error is no answer of the database to it.
    pub(super) fn after_lost_connection(self) -> Self {
        match self {
            Self::Internal(cause) => Self::Unavailable(cause),
            error => error,
        }
    }

    /// True if a PostgreSQL server refused a connection because it has no free one for this role.
    pub(crate) fn has_no_free_connection(&self) -> bool {
        SqlState::has_no_free_connection(&self.chain())
    }

    /// True if the operation failed because the disk of the database is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        let Self::Unavailable(cause) = self else { return false };
        let text = chain(cause);
        match SqlState::find(&text) {
            Some(state) => state.is_disk_full(),
            None => text.contains("database or disk is full"),
        }
    }

    /// True if PostgreSQL could not convert a stored text to UTF-8.
    pub(crate) fn is_text_unconvertible(&self) -> bool {
        let (Self::Unavailable(cause) | Self::Internal(cause)) = self else { return false };
        SqlState::find(&chain(cause)).is_some_and(SqlState::is_text_unconvertible)
    }

    /// Adds the file of a SQLite database to the cause, unless the cause names it already.
    pub(super) fn in_file(self, path: &Path) -> Self {
        let with_file = |cause: Cause| {
            let mut text = chain(&cause);
            if text.contains("attempt to write a readonly database") {
                text = format!("the user of this process may not write the file or its folder ({text})");
            }
            if text.contains(LOCKED) {
                text =
                    format!("another program writes to the file: wait until it is done, or stop it ({text})");
            }
            if !text.contains(&*path.to_string_lossy()) {
                text = format!("{text} (database file {})", ShownPath(path));
            }
            if text == chain(&cause) { cause } else { Cause::new(text) }
        };
        match self {
            Self::Unavailable(cause) => Self::Unavailable(with_file(cause)),
            Self::Damaged(cause) => Self::Damaged(with_file(cause)),
            error => error,
        }
    }

    /// Creates [`DatabaseError::Unavailable`] with this source.
    pub(crate) fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Cause::new(source))
    }
}

impl From<DieselError> for DatabaseError {
    fn from(error: DieselError) -> Self {
        // The transaction could not be rolled back either, as after the loss of the connection: what counts
        // is why the commit failed.
        if let DieselError::RollbackErrorOnCommit { commit_error, .. } = error {
            return (*commit_error).into();
        }
        match &error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                match violated_constraint(information.as_ref()) {
                    Some(constraint) => Self::NotUnique(constraint),
                    None => Self::Internal(Cause::new("unexpected unique constraint violation")),
                }
            }
            DieselError::DatabaseError(_, information) if is_damaged(information.message()) => {
                Self::Damaged(Cause::new(error))
            }
            DieselError::DatabaseError(kind, information) if is_unavailable(*kind, information.message()) => {
                Self::Unavailable(Cause::new(error))
            }
            DieselError::BrokenTransactionManager => Self::Unavailable(Cause::new(error)),
            DieselError::DatabaseError(_, information) if lacks_privilege(information.message()) => {
                Self::Internal(Cause::new(format!("{error}: {PRIVILEGES}")))
            }
            _ => Self::Internal(Cause::new(error)),
        }
    }
}

/// Returns the violated constraint. PostgreSQL reports the constraint's name, SQLite the column in its
/// message; tests in `tests/it/store` check both. The details of the error are dropped, because PostgreSQL
/// includes the value in them.
fn violated_constraint(information: &dyn DatabaseErrorInformation) -> Option<Constraint> {
    let name = information.constraint_name().unwrap_or_else(|| information.message());
    let known = [
        ("core_user_email_key", Constraint::UserEmail),
        ("core_user.email", Constraint::UserEmail),
        ("core_user_username_key", Constraint::UserUsername),
        ("core_user.username", Constraint::UserUsername),
        ("core_registration_request", Constraint::RegistrationRequest),
    ];
    known.into_iter().find(|(part, _)| name.contains(part)).map(|(_, constraint)| constraint)
}

/// What SQLite says if a lock was not free within the time limit.
const LOCKED: &str = "database is locked";

/// Parts of the messages with which the driver reports a closed connection. They are never translated.
const CONNECTION_LOST: [&str; 3] =
    ["connection closed", "error communicating with the server", "server closed the connection"];

/// True if the error means that a page of the database cannot be read or written, or is invalid.
fn is_damaged(message: &str) -> bool {
    // SQLITE_CORRUPT, SQLITE_NOTADB and SQLITE_IOERR.
    const SQLITE: [&str; 4] = [
        "database disk image is malformed",
        "malformed database schema",
        "file is not a database",
        "disk I/O error",
    ];
    // The folders in which PostgreSQL keeps tables and the states of transactions. It names a file by them,
    // in every language; a right that a role lacks is one on a table.
    const FOLDERS: [&str; 5] = ["base/", "global/", "pg_tblspc/", "pg_xact/", "pg_multixact/"];
    match SqlState::of(message) {
        None => contains_any(message, &SQLITE),
        Some(state) => {
            // The server itself may not open one of its files.
            let is_file_denied = state.is_insufficient_privilege() && contains_any(message, &FOLDERS);
            state.is_damage() || is_file_denied
        }
    }
}

fn contains_any(message: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| message.contains(part))
}

/// What a role needs.
const PRIVILEGES: &str = "the role of the service needs SELECT, INSERT, UPDATE and DELETE on all tables of its database \
                          (one that only looks users up on a replica: SELECT), and one that migrates must own them";

/// True if the role of the connection lacks a right.
fn lacks_privilege(message: &str) -> bool {
    SqlState::of(message).is_some_and(SqlState::is_insufficient_privilege)
}

/// True if the error means that the database is unavailable. An error of PostgreSQL is recognized by its
/// SQLSTATE, since the server translates its messages. SQLite has no other language than English.
fn is_unavailable(kind: DatabaseErrorKind, message: &str) -> bool {
    const SQLITE: [&str; 4] = [
        LOCKED,
        "database or disk is full",
        "attempt to write a readonly database",
        "unable to open database file",
    ];
    if let Some(state) = SqlState::of(message) {
        return state.is_unavailable();
    }
    let is_unavailable_kind = matches!(
        kind,
        DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::SerializationFailure
    );
    is_unavailable_kind || contains_any(message, &CONNECTION_LOST) || contains_any(message, &SQLITE)
}
