//! How an import breaks.

use std::io;

use crate::{
    password::HashingError,
    store::{DjangoError, StoreError},
};

/// Why an import or an export did not come to its end. What was written before stays, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database of Django.
    #[error("Django's database: {0}")]
    Django(DjangoError),
    /// The store.
    #[error("the store")]
    Store(#[from] StoreError),
    /// The threads that hash have ended.
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

/// An error of the source, which is read by the same means as the store.
pub(super) fn of_source(error: StoreError) -> ImportError {
    ImportError::Django(error.into())
}
