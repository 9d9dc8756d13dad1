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
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::oneshot;

use crate::database::{DatabaseError, audit_log::RecordedEvents};

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
    /// calls fail with [`DatabaseError::Overloaded`].
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

/// Characters that a path in a `file:` URI cannot contain unescaped.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b'?').add(b'#').add(b'%');

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
    pub fn open(options: SqliteOptions) -> Result<Self, DatabaseError> {
        let (writer, write_jobs) = async_channel::bounded(options.queue_length);
        let (readers, read_jobs) = async_channel::bounded(options.queue_length);
        start_thread("sqlite-writer", &options, open_writer, write_jobs)?;
        for _ in 0..options.readers {
            start_thread("sqlite-reader", &options, open_reader, read_jobs.clone())?;
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
        job: impl FnOnce(&mut InlineConnection) -> Result<R, DatabaseError> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        run_on(&self.readers, job).await
    }

    /// Runs a job on the writer thread, in a transaction that holds the write lock from its start. Logs the
    /// audit events that the job recorded after the commit, even if the caller has gone by then.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut InlineConnection) -> Result<(R, RecordedEvents), DatabaseError> + Send + 'static,
    ) -> Result<R, DatabaseError> {
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
    ) -> Result<R, DatabaseError> {
        run_on(&self.writer, |connection| on_connection(connection, job)).await
    }
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

/// Settings of each connection to a store.
const COMMON: &str = "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; \
    PRAGMA cache_size = -16000; PRAGMA mmap_size = 2147418112;";

/// Opens a connection to a store that only reads.
pub(crate) fn open_reader(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    connect(options, &plain_name(options)?, &format!("PRAGMA query_only = ON; {COMMON}"))
}

/// Opens a writing connection to a store. A missing file is created if the options say so.
pub(super) fn open_writer(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    // FULL: an acknowledged write survives a crash of the machine. The checkpoint at 1,000 pages is SQLite's
    // default.
    const DURABLE: &str =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;";
    ensure_file(options)?;
    connect(options, &plain_name(options)?, &format!("{DURABLE} {COMMON}"))
}

/// Opens a file of another application and keeps its journal mode.
pub(super) fn open_foreign(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    ensure_file(options)?;
    connect(options, &plain_name(options)?, "")
}

/// Opens an existing file of any application in read-only mode and keeps its journal mode.
pub(super) fn open_read_only(options: &SqliteOptions) -> Result<SqliteConnection, DatabaseError> {
    require_file(&options.path)?;
    let path = path_text(options)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("./{path}") };
    let uri = format!("file:{}?mode=ro", utf8_percent_encode(&path, NOT_IN_A_PATH));
    connect(options, &uri, "PRAGMA query_only = ON;")
}

fn ensure_file(options: &SqliteOptions) -> Result<(), DatabaseError> {
    if !options.create {
        return require_file(&options.path);
    }
    create_private(&options.path).map_err(|error| error_in_file(&options.path, &error))
}

fn require_file(path: &Path) -> Result<(), DatabaseError> {
    if path.is_file() {
        return Ok(());
    }
    Err(DatabaseError::unavailable(format!("there is no database file {}", path.display())))
}

fn path_text(options: &SqliteOptions) -> Result<&str, DatabaseError> {
    let path = &options.path;
    path.to_str()
        .ok_or_else(|| DatabaseError::unavailable(format!("the path {} is not UTF-8", path.display())))
}

/// Returns the path, never a `file:` URI: the parameters of a URI could change what is opened.
fn plain_name(options: &SqliteOptions) -> Result<String, DatabaseError> {
    let path = path_text(options)?;
    Ok(if path.starts_with("file:") { format!("./{path}") } else { path.to_owned() })
}

/// Opens the file by its name, a path or a URI, and runs `pragmas`.
fn connect(options: &SqliteOptions, name: &str, pragmas: &str) -> Result<SqliteConnection, DatabaseError> {
    let failed = |error: &dyn std::error::Error| error_in_file(&options.path, error);
    let mut connection = SqliteConnection::establish(name).map_err(|error| failed(&error))?;
    // The time limit is set first, since the switch to WAL may have to wait for other processes too.
    let pragmas = format!("PRAGMA busy_timeout = {}; {pragmas}", options.busy_timeout.as_millis());
    connection.batch_execute(&pragmas).map_err(|error| failed(&error))?;
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

fn error_in_file(path: &Path, error: &dyn std::error::Error) -> DatabaseError {
    DatabaseError::unavailable(format!("{}: {error}", path.display()))
}

pub(super) fn inline(connection: SqliteConnection) -> InlineConnection {
    InlineConnection::with_runtime(connection, Inline)
}

/// Opens a connection with these options.
pub(super) type Open = fn(&SqliteOptions) -> Result<SqliteConnection, DatabaseError>;

/// Starts a thread that owns a connection and runs the jobs of `queue`. It ends when all senders of the queue
/// are dropped.
fn start_thread(
    name: &str,
    options: &SqliteOptions,
    open: Open,
    queue: Receiver<Job>,
) -> Result<(), DatabaseError> {
    let mut connection = open(options).map(inline)?;
    let options = options.clone();
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
    body: impl FnOnce(&mut InlineConnection) -> Result<R, DatabaseError>,
) -> Result<R, DatabaseError> {
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

fn execute(connection: &mut InlineConnection, statement: &'static str) -> Result<(), DatabaseError> {
    on_connection(connection, move |connection| connection.batch_execute(statement))?
        .map_err(DatabaseError::from)
}
