//! SQLite on threads of its own: one writer and a few readers, each with its own connection.
//!
//! A query is a job that is sent to a thread once and runs there to its end. A caller whose future is dropped
//! therefore neither blocks a worker of the runtime nor leaves a transaction open. The wrapper that is part
//! of diesel-async does both.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender, TrySendError};
use diesel::{SqliteConnection, connection::SimpleConnection};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use super::{
    disk_full::DiskFullFailures,
    sqlite_file::DatabaseFile,
    sqlite_open::{Open, SqliteOptions, open_reader, open_writer},
    sqlite_wal::{self, Checkpoint, WalWatch},
};
use crate::{
    clock::Clock,
    database::{DatabaseError, audit_log::RecordedEvents},
};

/// Interval at which the path of the file is checked. A file that was moved, deleted or replaced is noticed
/// within it; a write notices it at once.
const FILE_INTERVAL: Duration = Duration::from_millis(500);

/// Number of file checks between two checkpoints: one checkpoint every 2 s at most. SQLite itself makes one
/// after 1,000 pages; a reader is to be noticed earlier.
const FILE_CHECKS_PER_CHECKPOINT: u32 = 4;

/// A wait in the queue that is not subtracted from the time limit on the wait for the write lock.
const NEGLIGIBLE_WAIT: Duration = Duration::from_millis(50);

/// How long the last checkpoint waits for readers and writers of other processes.
const LAST_CHECKPOINT_WAIT: Duration = Duration::from_secs(1);

/// Runs each statement immediately on the calling thread, which is one of SQLite's own.
pub struct Inline;

impl SpawnBlocking for Inline {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn std::error::Error + Send + Sync>>>
    where
        R: Send + 'static,
    {
        Box::pin(std::future::ready(Ok(task())))
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// A connection whose futures are ready at the first poll.
pub type InlineConnection = SyncConnectionWrapper<SqliteConnection, Inline>;

type Job = Box<dyn FnOnce(&mut InlineConnection) + Send>;

/// The job queues of the threads. The threads end when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteThreads {
    options: SqliteOptions,
    file: Arc<DatabaseFile>,
    /// Number of transactions that the writer has committed.
    commits: Arc<AtomicU64>,
    /// Number of transactions that failed because the disk is full.
    disk_full_failures: DiskFullFailures,
    clock: Clock,
    writer: Sender<Job>,
    readers: Sender<Job>,
}

impl SqliteThreads {
    /// Opens the file and starts the threads.
    pub fn open(options: SqliteOptions) -> Result<Self, DatabaseError> {
        let (writer, write_jobs) = async_channel::bounded(options.queue_length);
        let (readers, read_jobs) = async_channel::bounded(options.queue_length);
        start_thread("sqlite-writer", &options, (open_writer, checkpoint_all), write_jobs)?;
        let file = Arc::new(DatabaseFile::opened(&options.path)?);
        for _ in 0..options.readers {
            start_thread("sqlite-reader", &options, (open_reader, |_| {}), read_jobs.clone())?;
        }
        let (commits, disk_full_failures) = (Arc::default(), DiskFullFailures::default());
        Ok(Self { options, file, commits, disk_full_failures, clock: Clock::system(), writer, readers })
    }

    /// Returns the file that is open.
    #[must_use]
    pub(crate) fn file(&self) -> &Arc<DatabaseFile> {
        &self.file
    }

    /// Returns the number of transactions that the writer has committed.
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
        run_on(&self.readers, move |connection| {
            file.require_present()?;
            job(connection)
        })
        .await
    }

    /// Runs a job on the writer thread, in a transaction that holds the write lock from its start. Logs the
    /// audit events that the job recorded after the commit, even if the caller has gone by then.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<(R, RecordedEvents), DatabaseError> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let (file, commits, lock_wait) =
            (Arc::clone(&self.file), Arc::clone(&self.commits), self.lock_wait());
        let committed = move |connection: &mut InlineConnection| {
            file.check()?;
            let (value, recorded) = in_transaction(connection, &lock_wait, job)?;
            // If the file is gone now, it is unknown whether the commit is in it.
            file.check()?;
            commits.fetch_add(1, Ordering::Relaxed);
            recorded.log();
            Ok(value)
        };
        self.disk_full_failures.counted(run_on(&self.writer, committed).await)
    }

    /// Returns the number of transactions that failed because the disk is full.
    #[must_use]
    pub(crate) fn disk_full_failures(&self) -> u64 {
        self.disk_full_failures.count()
    }

    /// Writes to the file as a transaction does, without a change: sets `user_version`, which nothing uses,
    /// to the value that it has.
    pub(crate) async fn check_writes(&self) -> Result<(), DatabaseError> {
        let (file, lock_wait) = (Arc::clone(&self.file), self.lock_wait());
        let write = move |connection: &mut InlineConnection| {
            file.check()?;
            in_transaction(connection, &lock_wait, |connection| {
                execute(connection, "PRAGMA user_version = 0")
            })
        };
        run_on(&self.writer, write).await
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

    /// Begins the wait of a write for its turn and for the write lock.
    fn lock_wait(&self) -> LockWait {
        let (clock, limit) = (self.clock.clone(), self.options.busy_timeout);
        LockWait { enqueued: clock.instant(), clock, limit }
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

/// The wait of a write for its turn and then for the write lock, which another process may hold. Both have
/// one time limit, so that the writes behind a lock do not wait for it one after the other.
struct LockWait {
    clock: Clock,
    enqueued: Instant,
    limit: Duration,
}

impl LockWait {
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

fn set_busy_timeout(connection: &mut InlineConnection, limit: Duration) -> Result<(), DatabaseError> {
    let pragma = format!("PRAGMA busy_timeout = {}", limit.as_millis());
    on_connection(connection, move |connection| connection.batch_execute(&pragma))?
        .map_err(DatabaseError::from)
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

/// Number of connections that threads own in this process.
static OPEN_CONNECTIONS: Mutex<usize> = Mutex::new(0);

/// Notified when a thread has closed its connection.
static CLOSED: Condvar = Condvar::new();

/// Counts the connection of a thread until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Self {
        *OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_all();
    }
}

/// Blocks until the threads of all dropped `SqliteThreads` have closed their connections, which moves the
/// WAL into the file. Returns false if this takes longer than `limit`.
#[must_use]
pub fn wait_until_closed(limit: Duration) -> bool {
    let open = OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = CLOSED.wait_timeout_while(open, limit, |open| *open > 0);
    let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *open == 0
}

/// Returns the output of a future that never waits, since [`Inline`] finishes each statement immediately.
pub(crate) fn poll_once<R>(body: impl Future<Output = Result<R, DatabaseError>>) -> Result<R, DatabaseError> {
    body.now_or_never().expect("a body awaits only statements, and Inline finishes each immediately")
}

/// Runs synchronous diesel code on the wrapped connection.
fn on_connection<R: Send + 'static>(
    connection: &mut InlineConnection,
    job: impl FnOnce(&mut SqliteConnection) -> R + Send + 'static,
) -> Result<R, DatabaseError> {
    connection
        .spawn_blocking(move |connection| Ok(job(connection)))
        .now_or_never()
        .expect("Inline finishes each job immediately")
        .map_err(DatabaseError::from)
}

pub(super) fn inline(connection: SqliteConnection) -> InlineConnection {
    InlineConnection::with_runtime(connection, Inline)
}

/// Starts a thread that owns a connection and runs the jobs of `queue`. When all senders of the queue are
/// dropped, it runs `finish` and closes the connection.
fn start_thread(
    name: &str,
    options: &SqliteOptions,
    (open, finish): (Open, fn(&mut InlineConnection)),
    queue: Receiver<Job>,
) -> Result<(), DatabaseError> {
    let mut connection = open(options).map(inline)?;
    let (options, counted) = (options.clone(), Counted::new());
    let run = move || {
        while let Ok(job) = queue.recv_blocking() {
            if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                // A panic may have left a transaction open, so the connection is not used again.
                tracing::error!("SQLite query panicked; replacing its connection");
                match open(&options) {
                    Ok(replacement) => connection = inline(replacement),
                    Err(error) => tracing::error!(%error, "SQLite connection could not be replaced"),
                }
            }
        }
        finish(&mut connection);
        drop(connection);
        drop(counted);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(DatabaseError::unavailable)
}

async fn run_on<R: Send + 'static>(
    queue: &Sender<Job>,
    job: impl FnOnce(&mut InlineConnection) -> Result<R, DatabaseError> + Send + 'static,
) -> Result<R, DatabaseError> {
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        // The receiver is closed if the caller has gone, for example because its deadline passed.
        if !reply.is_closed() {
            let _ = reply.send(job(connection));
        }
    });
    queue.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => DatabaseError::Overloaded,
        TrySendError::Closed(_) => DatabaseError::unavailable("the SQLite threads have stopped"),
    })?;
    answer.await.map_err(|_| DatabaseError::unavailable("the query panicked"))?
}

fn in_transaction<R>(
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

fn execute(connection: &mut InlineConnection, statement: &'static str) -> Result<(), DatabaseError> {
    on_connection(connection, move |connection| connection.batch_execute(statement))?
        .map_err(DatabaseError::from)
}
