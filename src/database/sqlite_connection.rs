//! A connection to SQLite with the interface of diesel-async, which runs each statement on the calling
//! thread.

use std::time::Duration;

use diesel::{SqliteConnection, connection::SimpleConnection};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use futures_util::{FutureExt, future::BoxFuture};

use crate::database::DatabaseError;

/// Runs each statement immediately on the calling thread: one of SQLite's own, or that of a command
/// (`session`).
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

/// Returns the output of a future that never waits, since [`Inline`] finishes each statement immediately.
pub(crate) fn poll_once<R>(body: impl Future<Output = Result<R, DatabaseError>>) -> Result<R, DatabaseError> {
    body.now_or_never().expect("a body awaits only statements, and Inline finishes each immediately")
}

/// Runs synchronous diesel code on the wrapped connection.
pub(super) fn on_connection<R: Send + 'static>(
    connection: &mut InlineConnection,
    job: impl FnOnce(&mut SqliteConnection) -> R + Send + 'static,
) -> Result<R, DatabaseError> {
    connection
        .spawn_blocking(move |connection| Ok(job(connection)))
        .now_or_never()
        .expect("Inline finishes each job immediately")
        .map_err(DatabaseError::from)
}

/// Wraps a connection.
pub(super) fn inline(connection: SqliteConnection) -> InlineConnection {
    InlineConnection::with_runtime(connection, Inline)
}

/// Runs a statement that returns no rows.
pub(super) fn execute(
    connection: &mut InlineConnection,
    statement: &'static str,
) -> Result<(), DatabaseError> {
    on_connection(connection, move |connection| connection.batch_execute(statement))?
        .map_err(DatabaseError::from)
}

/// Limits the wait for locks of other connections and processes.
pub(super) fn set_busy_timeout(
    connection: &mut InlineConnection,
    limit: Duration,
) -> Result<(), DatabaseError> {
    let pragma = format!("PRAGMA busy_timeout = {}", limit.as_millis());
    on_connection(connection, move |connection| connection.batch_execute(&pragma))?
        .map_err(DatabaseError::from)
}
