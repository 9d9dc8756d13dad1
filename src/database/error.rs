//! Errors of the database, grouped by what a caller can do about them.

use std::{error::Error, sync::Arc};

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use crate::domain::chain;

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
    #[error("the database is damaged")]
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

    /// True if the error text shows that the server closed the connection. diesel itself marks the connection
    /// as broken only at its next use.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Unavailable(cause) if contains_any(&chain(cause), &CONNECTION_LOST))
    }

    /// True if the operation failed because the disk of the database is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        const FULL: [&str; 3] =
            ["database or disk is full", "No space left on device", "could not extend file"];
        matches!(self, Self::Unavailable(cause) if contains_any(&chain(cause), &FULL))
    }

    /// Creates [`DatabaseError::Unavailable`] with this source.
    pub(crate) fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Cause::new(source))
    }
}

impl From<DieselError> for DatabaseError {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                match violated_constraint(information.as_ref()) {
                    Some(constraint) => Self::NotUnique(constraint),
                    None => Self::Internal(Cause::new("unexpected unique constraint violation")),
                }
            }
            DieselError::DatabaseError(_, information) if contains_any(information.message(), &DAMAGED) => {
                Self::Damaged(Cause::new(error))
            }
            DieselError::DatabaseError(kind, information) if is_unavailable(*kind, information.message()) => {
                Self::Unavailable(Cause::new(error))
            }
            DieselError::BrokenTransactionManager => Self::Unavailable(Cause::new(error)),
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

/// Parts of the messages with which PostgreSQL and its driver report a closed connection.
const CONNECTION_LOST: [&str; 5] = [
    "terminating connection",
    "the database system is",
    "connection closed",
    "error communicating with the server",
    "server closed the connection",
];

/// Parts of the messages with which the engines report a page that cannot be read or written, or is invalid.
const DAMAGED: [&str; 12] = [
    // SQLite: SQLITE_CORRUPT, SQLITE_NOTADB and SQLITE_IOERR
    "database disk image is malformed",
    "malformed database schema",
    "file is not a database",
    "disk I/O error",
    // PostgreSQL: data_corrupted (XX001) and index_corrupted (XX002)
    "invalid page in block",
    "could not read block",
    "could not read blocks",
    "missing chunk number",
    "unexpected chunk",
    "compressed pglz data is corrupt",
    "contains unexpected zero page",
    "contains corrupted page",
];

fn contains_any(message: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| message.contains(part))
}

/// True if the error means that the database is unavailable. diesel does not keep the SQLSTATE, so an error
/// that diesel does not classify is recognized by the engine's English message.
fn is_unavailable(kind: DatabaseErrorKind, message: &str) -> bool {
    const MESSAGES: [&str; 13] = [
        // SQLite
        "database is locked",
        "database or disk is full",
        "attempt to write a readonly database",
        "unable to open database file",
        // PostgreSQL
        "canceling statement",
        "deadlock detected",
        "too many clients",
        "too many connections",
        "remaining connection slots",
        "read-only transaction",
        "No space left on device",
        "could not extend file",
        "cannot execute",
    ];
    let lost = matches!(
        kind,
        DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::SerializationFailure
    );
    lost || contains_any(message, &CONNECTION_LOST) || contains_any(message, &MESSAGES)
}
