//! SQLite on threads of its own: one writer and a few readers, each with its own connection.
//!
//! A query is a job that is sent to a thread once and runs there to its end. A caller whose future is dropped
//! therefore neither blocks a worker of the runtime nor leaves a transaction open. With the wrapper that
//! diesel-async provides for a runtime, both can happen.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_channel::Sender;
use diesel::{
    RunQueryDsl, SqliteConnection, connection::SimpleConnection, dsl::sql, select, sql_types::Integer,
};

use super::{
    disk_full::DiskFullFailures,
    sqlite_connection::{InlineConnection, execute, on_connection, set_busy_timeout},
    sqlite_file::DatabaseFile,
    sqlite_open::{SqliteOptions, open_reader, open_writer},
    sqlite_thread::{Job, Lifecycle, run_on, start_thread},
    sqlite_transaction::{LockWait, in_transaction},
    sqlite_wal::{self, Checkpoint, WalWatch},
};
use crate::{
    clock::Clock,
    database::{DatabaseError, audit_log::RecordedEvents},
    entropy::Entropy,
};

/// Interval at which the path of the file is checked. A file that was moved, deleted or replaced is noticed
/// within it; a write notices it at once.
const FILE_INTERVAL: Duration = Duration::from_millis(500);

/// Number of file checks between two checkpoints: one checkpoint every 2 s at most. SQLite itself makes one
/// after 1,000 pages; a reader is to be noticed earlier.
const FILE_CHECKS_PER_CHECKPOINT: u32 = 4;

/// The bits of the random first number of write checks. So there are as many numbers after it as before it:
/// with a write check each second, enough for 34 years.
const FIRST_WRITE_NUMBER_BITS: i32 = 0x3fff_ffff;

/// How long the last checkpoint waits for readers and writers of other processes.
const LAST_CHECKPOINT_WAIT: Duration = Duration::from_secs(1);

/// The job queues of the threads. The threads end when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteThreads {
    options: SqliteOptions,
    file: Arc<DatabaseFile>,
    /// Number of transactions that the writer has committed, without those of write checks.
    commits: Arc<AtomicU64>,
    /// Number of writes that failed because the disk is full.
    disk_full_failures: DiskFullFailures,
    clock: Clock,
    entropy: Entropy,
    writer: Sender<Job>,
    readers: Sender<Job>,
}

impl SqliteThreads {
    /// Opens the file and starts the threads.
    pub fn open(options: SqliteOptions) -> Result<Self, DatabaseError> {
        let (writer, write_jobs) = async_channel::bounded(options.queue_length);
        let (readers, read_jobs) = async_channel::bounded(options.queue_length);
        let opened = Arc::new(OnceLock::new());
        let lifecycle = |open, close| Lifecycle { open, close, file: Arc::clone(&opened) };
        // The writer is opened first: it creates the file and switches it to WAL mode.
        start_thread("sqlite-writer", &options, lifecycle(open_writer, checkpoint_all), write_jobs)?;
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let file = Arc::new(DatabaseFile::opened(&options.path, clock.clone())?);
        let _ = opened.set(Arc::clone(&file));
        for _ in 0..options.readers {
            start_thread("sqlite-reader", &options, lifecycle(open_reader, |_| {}), read_jobs.clone())?;
        }
        let (commits, disk_full_failures) = (Arc::default(), DiskFullFailures::default());
        Ok(Self { options, file, commits, disk_full_failures, clock, entropy, writer, readers })
    }

    /// Returns the file that is open.
    #[must_use]
    pub(crate) fn file(&self) -> &Arc<DatabaseFile> {
        &self.file
    }

    /// Returns the number of transactions that the writer has committed, without those of write checks.
    #[must_use]
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Returns the options that the database was opened with.
    #[must_use]
    pub fn options(&self) -> &SqliteOptions {
        &self.options
    }

    /// Runs a job on a reader thread.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<R, DatabaseError> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let file = Arc::clone(&self.file);
        let read = run_on(&self.readers, move |connection| {
            file.require_present()?;
            job(connection)
        });
        read.await.map_err(|error| self.with_file(error))
    }

    /// Runs a job on the writer thread, in a transaction that holds the write lock from its start. After the
    /// commit, logs the audit events that the job recorded, even if the caller has gone by then.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<(R, RecordedEvents), DatabaseError> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let (file, commits, lock_wait) =
            (Arc::clone(&self.file), Arc::clone(&self.commits), self.lock_wait());
        let write = move |connection: &mut InlineConnection| {
            file.check()?;
            let (value, recorded) = in_transaction(connection, &lock_wait, job)?;
            // If the file is gone now, it is unknown whether the commit is in it.
            file.check()?;
            commits.fetch_add(1, Ordering::Relaxed);
            recorded.log();
            Ok(value)
        };
        let written = run_on(&self.writer, write).await;
        self.disk_full_failures.counted(written.map_err(|error| self.with_file(error)))
    }

    /// Returns the count of writes that failed because the disk is full.
    #[must_use]
    pub(crate) fn disk_full_failures(&self) -> &DiskFullFailures {
        &self.disk_full_failures
    }

    /// Writes to the file as a transaction does, without a change to a row: makes the number in its header
    /// greater by which [`DatabaseFile::check`] tells that the file was overwritten.
    pub(crate) async fn check_writes(&self) -> Result<(), DatabaseError> {
        let (file, lock_wait) = (Arc::clone(&self.file), self.lock_wait());
        let first = i32::from_be_bytes(self.entropy.bytes()) & FIRST_WRITE_NUMBER_BITS | 1;
        let write = move |connection: &mut InlineConnection| {
            file.check()?;
            let number = in_transaction(connection, &lock_wait, |connection| {
                let file = Arc::clone(&file);
                on_connection(connection, move |connection| write_next_number(connection, &file, first))?
            })?;
            file.wrote_number(number);
            Ok(())
        };
        run_on(&self.writer, write).await.map_err(|error| self.with_file(error))
    }

    /// Watches the file until the future is dropped: notices that it was moved, deleted or replaced, and
    /// warns of readers that keep its WAL from being checkpointed.
    pub(crate) async fn watch(&self) {
        let mut wal = WalWatch::default();
        for number in 1_u32.. {
            tokio::time::sleep(FILE_INTERVAL).await;
            if self.file.check().is_err() || !number.is_multiple_of(FILE_CHECKS_PER_CHECKPOINT) {
                continue;
            }
            // An error is reported by the writes that have it too.
            if let Ok(Ok(checkpoint)) = self.on_writer(Checkpoint::run).await
                && wal.is_warning_due(checkpoint)
            {
                sqlite_wal::warn(self.file.path());
            }
        }
    }

    /// Adds the path of the file to an error of a job on [`SqliteThreads::on_writer`].
    #[must_use]
    pub(crate) fn with_file(&self, error: DatabaseError) -> DatabaseError {
        error.in_file(&self.options.path)
    }

    fn lock_wait(&self) -> LockWait {
        LockWait::new(self.clock.clone(), self.options.busy_timeout)
    }

    /// Runs a job on the writer thread, without a transaction.
    pub(crate) async fn on_writer<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SqliteConnection) -> R + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let file = Arc::clone(&self.file);
        let checked = move |connection: &mut InlineConnection| {
            file.check()?;
            on_connection(connection, job)
        };
        run_on(&self.writer, checked).await
    }
}

/// Increments `user_version`, by which a service notices that an earlier copy has overwritten the file, and
/// returns it. `first` is the number for a file that has none.
fn write_next_number(
    connection: &mut SqliteConnection,
    file: &DatabaseFile,
    first: i32,
) -> Result<i32, DatabaseError> {
    let current = "(SELECT user_version FROM pragma_user_version)";
    let next = file.next_write_number(select(sql::<Integer>(current)).get_result(connection)?, first)?;
    connection.batch_execute(&format!("PRAGMA user_version = {next}"))?;
    Ok(next)
}

/// Moves all pages of the WAL into the file, so that the file alone is complete. If another process reads or
/// writes for longer, that process moves the rest when it closes the file.
fn checkpoint_all(connection: &mut InlineConnection) {
    let moved = set_busy_timeout(connection, LAST_CHECKPOINT_WAIT)
        .and_then(|()| execute(connection, "PRAGMA wal_checkpoint(TRUNCATE)"));
    if let Err(error) = moved {
        tracing::warn!(error = %error.chain(), "The WAL could not be moved into the database file");
    }
}
