//! Tools over a whole store: a copy into another store, and a backup of a SQLite file.
//!
//! They use the tables as the store defines them, one connection at a time, and serve no calls meanwhile.

mod backup;
mod copy;

pub use self::{
    backup::BackupError,
    copy::{CopiedTable, CopyError, StoreCopy},
};
