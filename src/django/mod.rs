//! The database of a Django backend: reads its table `core_user` row by row, and writes the table as Django
//! does.
//!
//! The meaning of the values, and what an import does with them, is defined in `import`.

mod schema;
mod source;
mod target;

pub use self::{
    schema::DjangoSchema,
    source::{DjangoRow, DjangoSource},
    target::{DjangoTarget, DjangoUser},
};
use std::path::PathBuf;

use crate::database::DatabaseError;

/// Reasons why a database cannot be used as that of the Django backend.
#[derive(Debug, thiserror::Error)]
pub enum DjangoError {
    /// The database does not answer, or rejected a statement.
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// The database has no table `core_user`.
    #[error("it has no table core_user: it belongs to another application, or Django has not migrated it")]
    NoTable,
    /// The table has other columns than that of the Django backend; the text lists the differences.
    #[error("its table core_user is not that of the Django backend: {0}")]
    OtherTable(String),
    /// The integrity check of SQLite failed.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The SQLite file was moved or replaced while it was open.
    #[error("the file {} was moved or replaced while it was open: run the command again", .0.display())]
    Replaced(PathBuf),
    /// The table has rows, where an empty table or none was expected.
    #[error("its table core_user already has rows: nothing was written")]
    NotEmpty,
}

impl From<diesel::result::Error> for DjangoError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}
