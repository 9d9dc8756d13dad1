//! What can go wrong in the store, sized to what a caller can do about it.

use std::{error::Error, sync::Arc};

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

/// The unique constraints that callers branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another user has this email.
    UserEmail,
    /// Another user has this username, or one with the same comparison form.
    UserUsername,
    /// A registration with this request id exists.
    RegistrationRequest,
}

/// Why the store did not do what it was asked. Nothing was changed, except that after [`StoreError::Unavailable`] from
/// a write it is unknown whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A unique constraint refused the row.
    #[error("another row already has this value ({0:?})")]
    NotUnique(Constraint),
    /// The database cannot be reached, did not answer in time, or cannot write.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// More work waits for the database than it can do in time.
    #[error("too much work waits for the database")]
    Overloaded,
    /// A row holds a value that the service never writes.
    #[error("a row of {table} cannot be read: its {column} is not valid")]
    Corrupt {
        /// The table of the row.
        table: &'static str,
        /// The column that does not parse.
        column: &'static str,
    },
    /// Anything else: a defect of the service or of the schema.
    #[error("the database refused a statement")]
    Internal(#[source] Cause),
}

/// A shared cause: one failed query may fail many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error of a library, or a sentence.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(source.into()))
    }
}

impl StoreError {
    /// The error with its causes in one line, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// Whether the server has ended the connection, by what it says: diesel notices only the next time.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Unavailable(cause) if contains_any(&chain(cause), &CONNECTION_LOST))
    }

    /// The database cannot be reached, because of `source`.
    pub(crate) fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Cause::new(source))
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                match violated(information.as_ref()) {
                    Some(constraint) => Self::NotUnique(constraint),
                    None => {
                        Self::Internal(Cause::new("a unique constraint that no caller knows was violated"))
                    }
                }
            }
            DieselError::DatabaseError(kind, information)
                if says_unavailable(*kind, information.message()) =>
            {
                Self::Unavailable(Cause::new(error))
            }
            DieselError::BrokenTransactionManager => Self::Unavailable(Cause::new(error)),
            _ => Self::Internal(Cause::new(error)),
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// PostgreSQL names the constraint, SQLite the column in its message: see `tests/it/store`. The details are not kept,
/// since PostgreSQL puts the value into them.
fn violated(information: &dyn DatabaseErrorInformation) -> Option<Constraint> {
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

/// Words of PostgreSQL and its driver for the end of a connection.
const CONNECTION_LOST: [&str; 5] = [
    "terminating connection",
    "the database system is",
    "connection closed",
    "error communicating with the server",
    "server closed the connection",
];

fn contains_any(message: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| message.contains(part))
}

/// diesel keeps no SQLSTATE, so that what it does not classify is told by the engines' English messages.
fn says_unavailable(kind: DatabaseErrorKind, message: &str) -> bool {
    const MESSAGES: [&str; 16] = [
        // SQLite
        "database is locked",
        "database or disk is full",
        "disk I/O error",
        "attempt to write a readonly database",
        "unable to open database file",
        "database disk image is malformed",
        "file is not a database",
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
