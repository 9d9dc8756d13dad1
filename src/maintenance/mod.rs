//! Tools over a whole store: a copy into another store, and a backup of a SQLite file.
//!
//! Each tool reads a store over one connection. Its process serves no calls meanwhile.

mod backup;
mod copy;

pub use self::{
    backup::BackupError,
    copy::{CopiedTable, CopyError, StoreCopy},
};
