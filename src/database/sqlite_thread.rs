//! Threads that each own a connection to SQLite and run the jobs of a queue.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
};

use async_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use super::{
    sqlite_connection::{InlineConnection, execute, inline},
    sqlite_file::DatabaseFile,
    sqlite_open::{Open, SqliteOptions},
};
use crate::database::DatabaseError;

/// A query that runs on a thread.
pub(super) type Job = Box<dyn FnOnce(&mut InlineConnection) + Send>;

/// How a connection is opened, and what is done before it is closed.
pub(super) struct Lifecycle {
    pub(super) open: Open,
    pub(super) close: fn(&mut InlineConnection),
    /// The file of the connection, once it is open. A connection to a file that is no longer the one at its
    /// path is not closed: SQLite would write the WAL into a file that another program has written since.
    pub(super) file: Arc<OnceLock<Arc<DatabaseFile>>>,
}

/// Starts a thread that owns a connection and runs the jobs of `queue`, until all senders of the queue are
/// dropped.
pub(super) fn start_thread(
    name: &str,
    options: &SqliteOptions,
    Lifecycle { open, close, file }: Lifecycle,
    queue: Receiver<Job>,
) -> Result<(), DatabaseError> {
    let mut connection = open(options)?.map(inline);
    let options = options.clone();
    let run = move || {
        while let Ok(job) = queue.recv_blocking() {
            if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                // A panic may have left a transaction open, so the connection is replaced. If this fails, at
                // least the transaction is ended: with it, each further transaction would fail.
                tracing::error!("SQLite query panicked; replacing its connection");
                match open(&options) {
                    Ok(replacement) => connection = replacement.map(inline),
                    Err(error) => {
                        tracing::error!(%error, "SQLite connection could not be replaced");
                        let _ = execute(&mut connection, "ROLLBACK");
                    }
                }
            }
        }
        if file.get().is_none_or(|file| file.check().is_ok()) {
            close(&mut connection);
        } else {
            connection.leave_open();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(DatabaseError::unavailable)
}

/// Sends a job to the threads of `queue` and returns its result.
pub(super) async fn run_on<R: Send + 'static>(
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
