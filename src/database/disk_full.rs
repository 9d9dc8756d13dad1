//! Counts the operations that failed because the disk of the database is full: the health check has no other
//! sign of it, since its own write may still fit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::database::DatabaseError;

/// The count. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct DiskFullFailures(Arc<AtomicU64>);

impl DiskFullFailures {
    /// Counts the result of an operation if the disk was full, and returns it.
    pub(super) fn counted<R>(&self, result: Result<R, DatabaseError>) -> Result<R, DatabaseError> {
        result.inspect_err(|error| {
            if error.is_disk_full() {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Returns the number of such failures so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
