//! Errors of an import or export.

use std::io;

use crate::{database::DatabaseError, django::DjangoError, password::HashingError};

/// Reasons why an import or export did not finish. What an import has written stays, and its next run
/// resumes.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The Django database does not answer or is unsuitable.
    #[error("the Django database: {0}")]
    Django(#[source] DjangoError),
    /// The store does not answer or rejected a statement.
    #[error("the store failed")]
    Store(#[from] DatabaseError),
    /// A password could not be hashed.
    #[error("passwords cannot be hashed")]
    Hashing(#[from] HashingError),
    /// The report cannot be written.
    #[error("the report cannot be written")]
    Report(#[from] io::Error),
}

impl From<DjangoError> for ImportError {
    fn from(error: DjangoError) -> Self {
        Self::Django(error)
    }
}

/// Converts an error of the source, which is accessed by the same means as the store.
pub(super) fn of_source(error: DatabaseError) -> ImportError {
    ImportError::Django(error.into())
}
