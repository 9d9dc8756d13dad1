//! Warns of a reader that keeps the WAL of a SQLite file from being checkpointed, so that the WAL grows.
//!
//! SQLite cannot move pages from the WAL into the file that a reader's snapshot does not contain. The reader
//! is usually another program, such as a shell with an open transaction.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use diesel::{QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types::Integer};

use super::sqlite_file::with_suffix;
use crate::database::DatabaseError;

/// The bytes of the file `-shm` that readers of a snapshot lock
/// (<https://sqlite.org/walformat.html#locks>).
const READ_LOCKS: std::ops::RangeInclusive<u64> = 123..=127;

/// Smallest number of pages to move for which a checkpoint is made. For fewer, the sync of the file would
/// cost more than the move.
const PAGES_MIN: i32 = 64;

/// The result of a checkpoint: the pages in the WAL, and how many of them are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub(super) struct Checkpoint {
    #[diesel(sql_type = Integer)]
    log: i32,
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

impl Checkpoint {
    /// Moves pages from the WAL into the file, except those that are newer than the snapshot of a reader.
    /// Waits for no other connection. Moves nothing and returns `None` if fewer than [`PAGES_MIN`] pages are
    /// not in the file yet.
    pub(super) fn run(connection: &mut SqliteConnection) -> Result<Option<Self>, DatabaseError> {
        let state: Self = sql_query("PRAGMA wal_checkpoint(NOOP)").get_result(connection)?;
        if state.log.saturating_sub(state.checkpointed) < PAGES_MIN {
            return Ok(None);
        }
        Ok(Some(sql_query("PRAGMA wal_checkpoint(PASSIVE)").get_result(connection)?))
    }
}

/// Counts the checkpoints in a row that a reader stopped, each at the same page.
#[derive(Debug, Default)]
pub(super) struct WalWatch {
    stopped_at: i32,
    stopped_count: u32,
}

impl WalWatch {
    /// Adds the result of a checkpoint. True if a warning is due: at the third, fifth, ninth, 17th (and so
    /// on) checkpoint in a row that stopped at the same page. The distances double, so that the log stays
    /// short.
    pub(super) fn is_warning_due(&mut self, checkpoint: Option<Checkpoint>) -> bool {
        let stopped = checkpoint.filter(|checkpoint| checkpoint.checkpointed < checkpoint.log);
        let Some(checkpoint) = stopped else {
            *self = Self::default();
            return false;
        };
        if self.stopped_count == 0 || self.stopped_at != checkpoint.checkpointed {
            *self = Self { stopped_at: checkpoint.checkpointed, stopped_count: 0 };
        }
        self.stopped_count += 1;
        self.stopped_count >= 3 && (self.stopped_count - 1).is_power_of_two()
    }
}

/// Logs the size of the WAL and the other processes that read the database.
pub(super) fn warn(path: &Path) {
    let wal_bytes = fs::metadata(with_suffix(path, "-wal")).map_or(0, |file| file.len());
    let readers = readers(path);
    tracing::warn!(
        wal_bytes,
        readers,
        "The WAL of {} cannot be checkpointed and grows: a reader has kept its transaction open ({readers})",
        path.display()
    );
}

/// Returns the names and ids of the other processes that hold a lock of a reader, from `/proc` (Linux), or a
/// text that says that there are none.
fn readers(path: &Path) -> String {
    let inode = fs::metadata(with_suffix(path, "-shm")).map(|file| file.ino());
    let locks = fs::read_to_string("/proc/locks");
    let (Ok(inode), Ok(locks)) = (inode, locks) else { return unknown() };
    let mut ids: Vec<u32> = locks.lines().filter_map(|line| holder_of_read_lock(line, inode)).collect();
    ids.sort_unstable();
    ids.dedup();
    let names: Vec<_> = ids.into_iter().filter(|id| *id != std::process::id()).map(name_of).collect();
    if names.is_empty() { unknown() } else { names.join(", ") }
}

/// Returns the name and the id of a process.
fn name_of(id: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{id}/comm"));
    format!("{} with pid {id}", name.as_deref().map_or("a process", str::trim_end))
}

fn unknown() -> String {
    "no process with a lock is visible here".to_owned()
}

/// Returns the process id in a line of `/proc/locks` if it describes a lock of a reader on this file, such as
/// `1: POSIX  ADVISORY  READ 4711 08:01:131 124 124`.
fn holder_of_read_lock(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX" | "OFDLCK", _, "READ", id, file, start, _] = fields.as_slice() else { return None };
    let is_this_file = file.rsplit(':').next()?.parse() == Ok(inode);
    let is_read_lock = start.parse().is_ok_and(|start| READ_LOCKS.contains(&start));
    id.parse().ok().filter(|_| is_this_file && is_read_lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_reported_when_checkpoints_stop_at_the_same_page() {
        let mut watch = WalWatch::default();
        let mut due = |log, checkpointed| watch.is_warning_due(Some(Checkpoint { log, checkpointed }));
        // The reader of each of these checkpoints has ended by the next one.
        assert!(!due(10, 5) && !due(20, 10) && !due(30, 20) && !due(40, 40));
        assert!(!due(50, 40) && !due(60, 40) && due(70, 40), "the third time");
        let repeated = [due(80, 40), due(90, 40), due(95, 40), due(99, 40)];
        assert_eq!(repeated, [false, true, false, false], "repeated at the fifth time");
    }

    #[test]
    fn a_lock_of_a_reader_names_its_process() {
        let line = "7: POSIX  ADVISORY  READ 4711 08:01:131 124 124";
        assert_eq!(holder_of_read_lock(line, 131), Some(4711));
        assert_eq!(holder_of_read_lock(line, 132), None);
        assert_eq!(holder_of_read_lock(&line.replace("124", "128"), 131), None);
        assert_eq!(holder_of_read_lock(&line.replace("READ", "WRITE"), 131), None);
        assert_eq!(holder_of_read_lock("7: -> POSIX  ADVISORY  READ 4711 08:01:131 124 124", 131), None);
    }
}
