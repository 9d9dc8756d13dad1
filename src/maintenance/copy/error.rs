//! The errors of a copy.

use crate::database::DatabaseError;

/// Reasons why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the stores does not answer, or rejected a statement.
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// The target has rows, but no unfinished copy.
    #[error("the target is not empty: its table {0} has rows; nothing was written")]
    NotEmpty(&'static str),
    /// A table of the target has other rows than that of the source.
    #[error(
        "table {0} differs between source and target: the source has changed since an earlier copy was stopped, \
        or another process writes to one of them; start again with an empty target"
    )]
    Different(&'static str),
}

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}
