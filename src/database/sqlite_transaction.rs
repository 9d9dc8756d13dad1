//! Transactions of the thread that writes to SQLite.

use std::time::{Duration, Instant};

use super::sqlite_connection::{InlineConnection, execute, set_busy_timeout};
use crate::{clock::Clock, database::DatabaseError};

/// A shorter wait in the queue is not subtracted from the time limit on the wait for the write lock: changing
/// the limit takes two more statements.
const NEGLIGIBLE_WAIT: Duration = Duration::from_millis(50);

/// The wait of a write for its turn and then for the write lock, which another process may hold. Both have
/// one time limit, so that the writes behind a lock do not wait for it one after the other.
pub(super) struct LockWait {
    clock: Clock,
    enqueued: Instant,
    limit: Duration,
}

impl LockWait {
    /// Begins the wait of a write, which is put into the queue now.
    pub(super) fn new(clock: Clock, limit: Duration) -> Self {
        Self { enqueued: clock.instant(), clock, limit }
    }

    /// Begins a transaction that holds the write lock.
    fn begin(&self, connection: &mut InlineConnection) -> Result<(), DatabaseError> {
        // IMMEDIATE: a transaction that reads first and then writes would fail immediately if another process
        // wrote in between.
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let waited = self.clock.instant().duration_since(self.enqueued);
        if waited < NEGLIGIBLE_WAIT {
            return execute(connection, BEGIN);
        }
        set_busy_timeout(connection, self.limit.saturating_sub(waited))?;
        let begun = execute(connection, BEGIN);
        set_busy_timeout(connection, self.limit)?;
        begun
    }
}

/// Runs `body` in a transaction that holds the write lock from its start, and commits it unless `body` fails.
pub(super) fn in_transaction<R>(
    connection: &mut InlineConnection,
    lock_wait: &LockWait,
    body: impl FnOnce(&mut InlineConnection) -> Result<R, DatabaseError>,
) -> Result<R, DatabaseError> {
    lock_wait.begin(connection)?;
    let result = body(connection).and_then(|value| execute(connection, "COMMIT").map(|()| value));
    if result.is_err() {
        // An error here only means that SQLite has already rolled back itself, as it does when the disk is
        // full.
        let _ = execute(connection, "ROLLBACK");
    }
    result
}
