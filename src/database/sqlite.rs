//! SQLite on threads of its own: one writer and a few readers, each with its own connection.
//!
//! A query is a job that is sent to a thread once and runs there to its end. A caller whose future is dropped
//! therefore neither blocks a worker of the runtime nor leaves a transaction open. The wrapper that is part
//! of diesel-async does both.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use async_channel::{Receiver, Sender, TrySendError};
use diesel::{SqliteConnection, connection::SimpleConnection};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use super::sqlite_open::{Open, SqliteOptions, open_reader, open_writer};
use crate::database::{DatabaseError, audit_log::RecordedEvents};

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

pub(super) fn inline(connection: SqliteConnection) -> InlineConnection {
    InlineConnection::with_runtime(connection, Inline)
}

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
