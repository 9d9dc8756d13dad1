//! Django's own database: its table `core_user` read row by row, and written as Django would have made it.
//!
//! What its values mean, and what becomes of them, is not known here.

mod reader;
mod source;
mod survey;
mod target;

pub use self::{
    reader::StoreReader,
    source::{DjangoRow, DjangoSchema, DjangoSource},
    survey::{Candidate, Duplicates, Finding, Survey, SurveyField, UserState},
    target::{DjangoTarget, DjangoUser},
};
use super::StoreError;

/// Why a database is not Django's, or cannot be used as such.
#[derive(Debug, thiserror::Error)]
pub enum DjangoError {
    /// It does not answer, or refused a statement.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has no table `core_user`.
    #[error("there is no table core_user in it: it is another application's, or Django has not migrated it")]
    NoTable,
    /// The table has other columns than Django's; the difference in words.
    #[error("its table core_user is not the one of Django's backend: {0}")]
    OtherTable(String),
    /// SQLite found pages damaged or missing.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// There are rows already, where an empty table or none was expected.
    #[error("its table core_user has rows already: nothing was written")]
    NotEmpty,
}

impl From<diesel::result::Error> for DjangoError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}
