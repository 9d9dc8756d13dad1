//! The errors of a migration.

use crate::database::{Cause, DatabaseError};

/// Reasons why a database was not migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database does not answer, or rejected a statement.
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// A SQLite file of another application.
    #[error("the file belongs to another application (application_id {application_id}): nothing was changed")]
    Foreign {
        /// `application_id` in the header of the file; 0 if the file has tables but no `application_id`.
        application_id: i32,
    },
    /// A later release has migrated the database, and taken away what this release uses.
    #[error("the database has migrations that this release does not have ({}): run a later release", .0.join(", "))]
    Ahead(Vec<String>),
    /// The server is too old, or its settings would lose data.
    #[error("{0}")]
    Unsuitable(String),
    /// A migration failed and was rolled back.
    #[error("a migration failed")]
    Broken(#[source] Cause),
}

impl From<diesel::result::Error> for MigrateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}
