//! SQLite on threads of its own: one writer and a few readers, each with its own connection.
//!
//! A query is a job that is sent to a thread once and runs there to its end. A caller whose future is dropped
//! therefore neither blocks a worker of the runtime nor leaves a transaction open. The wrapper that is part
//! of diesel-async does both.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender, TrySendError};
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use crate::store::{StoreError, audit_log::RecordedEvents};

/// Options of a SQLite database.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Path of the database file.
    pub path: PathBuf,
    /// True if a missing file is created, with mode 0600; otherwise a missing file is an error.
    pub create: bool,
    /// Number of reader threads. More threads than cores make nothing faster.
    pub readers: usize,
    /// Time limit on waiting for a lock of another process.
    pub busy_timeout: Duration,
    /// Largest number of jobs that wait for the writer, and of jobs that wait for the readers. Beyond it,
    /// calls fail with [`StoreError::Overloaded`].
    pub queue_length: usize,
}

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
    writer: Sender<Job>,
    readers: Sender<Job>,
}

impl SqliteThreads {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file is missing and must not be created, or when it cannot be
    /// opened.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        ensure_file(&options)?;
        let (writer, write_jobs) = async_channel::bounded(options.queue_length);
        let (readers, read_jobs) = async_channel::bounded(options.queue_length);
        start_thread("sqlite-writer", &options, connect_writer, write_jobs)?;
        for _ in 0..options.readers {
            start_thread("sqlite-reader", &options, connect_reader, read_jobs.clone())?;
        }
        Ok(Self { options, writer, readers })
    }

    /// Returns the options that the database was opened with.
    #[must_use]
    pub fn options(&self) -> &SqliteOptions {
        &self.options
    }

    /// Runs a job on a reader thread.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        run_on(&self.readers, job).await
    }

    /// Runs a job on the writer thread, in a transaction that holds the write lock from its start. Logs the
    /// audit events that the job recorded after the commit, even if the caller has gone by then.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<(R, RecordedEvents), StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let committed = |connection: &mut InlineConnection| {
            let (value, recorded) = in_transaction(connection, job)?;
            recorded.log();
            Ok(value)
        };
        run_on(&self.writer, committed).await
    }

    /// Runs a job on the writer thread, without a transaction.
    pub(crate) async fn on_writer<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SqliteConnection) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        run_on(&self.writer, |connection| on_connection(connection, job)).await
    }
}

/// Returns the output of a future that never waits, since [`Inline`] finishes each statement immediately.
pub(crate) fn poll_once<R>(body: impl Future<Output = Result<R, StoreError>>) -> Result<R, StoreError> {
    body.now_or_never().expect("a body awaits only statements, and Inline finishes each immediately")
}

/// Runs synchronous diesel code on the wrapped connection.
fn on_connection<R: Send + 'static>(
    connection: &mut InlineConnection,
    job: impl FnOnce(&mut SqliteConnection) -> R + Send + 'static,
) -> Result<R, StoreError> {
    connection
        .spawn_blocking(move |connection| Ok(job(connection)))
        .now_or_never()
        .expect("Inline finishes each job immediately")
        .map_err(StoreError::from)
}

/// Opens another connection that only reads, for work that does not run on the reader threads.
pub(crate) fn open_reader(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    let connection = connect(options)?;
    configure(connection, &options.path, "PRAGMA query_only = ON;")
}

/// Opens a writing connection that the caller owns, for work through a whole database.
pub(crate) fn open_writer(options: &SqliteOptions) -> Result<InlineConnection, StoreError> {
    ensure_file(options)?;
    connect_writer(options)
}

/// Opens a file of another application and keeps its journal mode.
pub(crate) fn open_foreign(options: &SqliteOptions) -> Result<InlineConnection, StoreError> {
    ensure_file(options)?;
    connect(options).map(inline)
}

fn ensure_file(options: &SqliteOptions) -> Result<(), StoreError> {
    if options.create {
        create_private(&options.path).map_err(|error| error_in_file(&options.path, &error))
    } else if options.path.is_file() {
        Ok(())
    } else {
        Err(StoreError::unavailable(format!("there is no database file {}", options.path.display())))
    }
}

fn connect_reader(options: &SqliteOptions) -> Result<InlineConnection, StoreError> {
    open_reader(options).map(inline)
}

fn connect_writer(options: &SqliteOptions) -> Result<InlineConnection, StoreError> {
    let connection = connect(options)?;
    // FULL: an acknowledged write survives a crash of the machine. The checkpoint at 1,000 pages is SQLite's
    // default.
    configure(
        connection,
        &options.path,
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;",
    )
    .map(inline)
}

pub(crate) fn inline(connection: SqliteConnection) -> InlineConnection {
    InlineConnection::with_runtime(connection, Inline)
}

fn connect(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    let path = options.path.to_str().ok_or_else(|| {
        StoreError::unavailable(format!("the path {} is not UTF-8", options.path.display()))
    })?;
    // A path, never a `file:` URI: the parameters of a URI could change what is opened.
    let path = if path.starts_with("file:") { format!("./{path}") } else { path.to_owned() };
    let mut connection =
        SqliteConnection::establish(&path).map_err(|error| error_in_file(&options.path, &error))?;
    // Set first, since the switch to WAL may have to wait for other processes too.
    let busy = format!("PRAGMA busy_timeout = {};", options.busy_timeout.as_millis());
    connection.batch_execute(&busy).map_err(|error| error_in_file(&options.path, &error))?;
    Ok(connection)
}

fn configure(
    mut connection: SqliteConnection,
    path: &Path,
    pragmas: &str,
) -> Result<SqliteConnection, StoreError> {
    const COMMON: &str = "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; \
        PRAGMA cache_size = -16000; PRAGMA mmap_size = 2147418112;";
    connection
        .batch_execute(pragmas)
        .and_then(|()| connection.batch_execute(COMMON))
        .map_err(|error| error_in_file(path, &error))?;
    Ok(connection)
}

/// Creates the file, readable and writable by its owner only, and its parent directories.
fn create_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    // SQLite creates the -wal and -shm files with the mode of this file.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

pub(crate) fn error_in_file(path: &Path, error: &dyn std::error::Error) -> StoreError {
    StoreError::unavailable(format!("{}: {error}", path.display()))
}

type Connect = fn(&SqliteOptions) -> Result<InlineConnection, StoreError>;

/// Starts a thread that owns a connection and runs the jobs of `queue`. It ends when all senders of the queue
/// are dropped.
fn start_thread(
    name: &str,
    options: &SqliteOptions,
    connect: Connect,
    queue: Receiver<Job>,
) -> Result<(), StoreError> {
    let mut connection = connect(options)?;
    let options = options.clone();
    let run = move || {
        while let Ok(job) = queue.recv_blocking() {
            if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                // A panic may have left a transaction open, so the connection is not used again.
                tracing::error!("SQLite query panicked; replacing its connection");
                match connect(&options) {
                    Ok(replacement) => connection = replacement,
                    Err(error) => tracing::error!(%error, "SQLite connection could not be replaced"),
                }
            }
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(StoreError::unavailable)
}

async fn run_on<R: Send + 'static>(
    queue: &Sender<Job>,
    job: impl FnOnce(&mut InlineConnection) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        // The receiver is closed if the caller has gone, for example because its deadline passed.
        if !reply.is_closed() {
            let _ = reply.send(job(connection));
        }
    });
    queue.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => StoreError::Overloaded,
        TrySendError::Closed(_) => StoreError::unavailable("the SQLite threads have stopped"),
    })?;
    answer.await.map_err(|_| StoreError::unavailable("the query panicked"))?
}

fn in_transaction<R>(
    connection: &mut InlineConnection,
    body: impl FnOnce(&mut InlineConnection) -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    // IMMEDIATE: a transaction that reads first and then writes would fail immediately if another process
    // wrote in between.
    execute(connection, "BEGIN IMMEDIATE")?;
    let result = body(connection).and_then(|value| execute(connection, "COMMIT").map(|()| value));
    if result.is_err() {
        // An error here only means that SQLite has already rolled back itself, as it does when the disk is
        // full.
        let _ = execute(connection, "ROLLBACK");
    }
    result
}

fn execute(connection: &mut InlineConnection, statement: &'static str) -> Result<(), StoreError> {
    on_connection(connection, move |connection| connection.batch_execute(statement))?
        .map_err(StoreError::from)
}
