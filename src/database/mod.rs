//! Connections to the two engines: the threads that own SQLite's connections, the pool of PostgreSQL, its
//! replicas, and single sessions of commands; with the types of columns and errors that depend on the engine.
//!
//! `read!` and `write!` acquire the connection and expand the same body for both engines, so that a query
//! is written once; `statements!` does so for statements that several transactions share. A query that has
//! started runs to its end even if the caller's future is dropped.

pub(crate) mod audit_log;
pub(crate) mod columns;
mod disk_full;
mod error;
mod heartbeat;
pub(crate) mod postgres;
mod postgres_addresses;
pub(crate) mod postgres_connect;
mod postgres_errors;
pub(crate) mod postgres_pool;
mod postgres_refusal;
mod postgres_start;
mod postgres_timeline;
mod postgres_watch;
pub(crate) mod replicas;
mod replication;
pub(crate) mod session;
mod sql_state;
pub(crate) mod sqlite;
pub(crate) mod sqlite_close;
pub(crate) mod sqlite_connection;
mod sqlite_copy;
pub(crate) mod sqlite_file;
pub(crate) mod sqlite_open;
mod sqlite_thread;
mod sqlite_transaction;
mod sqlite_wal;

use std::time::Duration;

pub use self::{
    audit_log::log_audit_event,
    columns::{SqlTimestamp, SqlUuid},
    error::{Cause, Constraint, DatabaseError},
    postgres_connect::PostgresOptions,
    postgres_start::wait_for_postgres,
    postgres_timeline::NewestTimeline,
    replicas::ReplicaState,
    sqlite_close::wait_until_closed,
    sqlite_open::SqliteOptions,
};
use self::{postgres::PostgresPool, sqlite::SqliteThreads};

/// The database engine and its options.
#[derive(Debug, Clone)]
pub enum DatabaseOptions {
    /// A SQLite file. SQLite is compiled into the service.
    Sqlite(SqliteOptions),
    /// A PostgreSQL server, version 15 or later.
    Postgres(Box<PostgresOptions>),
    /// A PostgreSQL primary with replicas that serve look-ups by `auth_token`.
    Replicated {
        /// The primary, which serves all other queries, and the look-ups that no replica can answer.
        primary: Box<PostgresOptions>,
        /// The replicas.
        replicas: Vec<PostgresOptions>,
        /// Maximum replication lag. A replica that is further behind serves no look-ups.
        lag_max: Duration,
    },
}

/// The connections of one of the two engines.
#[derive(Clone)]
pub(crate) enum Connections {
    /// Threads that own the connections to one SQLite file.
    Sqlite(SqliteThreads),
    /// A pool of connections to a PostgreSQL server.
    Postgres(PostgresPool),
}

/// Runs `$body`, which only reads, on a connection without a transaction. On PostgreSQL it may run more than
/// once, with clones of what it captures: for the reasons of `write!`, and after the loss of its connection.
/// A macro for the same reason as `write!`.
macro_rules! read {
    ($connections:expr, $connection:ident => $body:block) => {
        match $connections {
            $crate::database::Connections::Sqlite(threads) => {
                threads
                    .read(move |$connection| {
                        $crate::database::sqlite_connection::poll_once(async move { $body })
                    })
                    .await
            }
            $crate::database::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.run_read(Box::pin(async move {
                    let attempt = async move |$connection: &mut diesel_async::AsyncPgConnection| {
                        let result: Result<_, $crate::database::DatabaseError> = async move { $body }.await;
                        result
                    };
                    let mut repeats = $crate::database::postgres_pool::Repeats::of_read();
                    loop {
                        let mut leased = own.lease().await?;
                        let answer = (attempt.clone())(leased.connection()).await;
                        if let Some(answer) = leased.settle(answer, &mut repeats) {
                            break answer;
                        }
                    }
                }))
                .await
            }
        }
    };
}

/// Runs `$body` in one transaction, which is rolled back if `$body` returns an error. `$recorded` names a
/// `RecordedEvents` that collects the audit events of the transaction; they are logged after the commit.
///
/// On PostgreSQL the isolation level is READ COMMITTED, whatever the server's default is. A transaction that
/// lost against another one (a deadlock, a serialization failure) or met outdated prepared statements runs
/// again, a limited number of times. So `$body` may run more than once, with clones of what it captures.
///
/// A macro, because the two connections have different types and diesel's queries have no common trait over
/// them: `$body` is compiled once for each.
macro_rules! write {
    ($connections:expr, $connection:ident => $body:block) => {
        $crate::database::write!($connections, $connection, _recorded => $body)
    };
    ($connections:expr, $connection:ident, $recorded:ident => $body:block) => {
        match $connections {
            $crate::database::Connections::Sqlite(threads) => {
                threads
                    .write(move |$connection| {
                        let mut recorded = $crate::database::audit_log::RecordedEvents::default();
                        let $recorded = &mut recorded;
                        let result = $crate::database::sqlite_connection::poll_once(async move { $body });
                        result.map(|value| (value, recorded))
                    })
                    .await
            }
            $crate::database::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.run_write(Box::pin(async move {
                    let attempt = async move |$connection: &mut diesel_async::AsyncPgConnection| {
                        let mut recorded = $crate::database::audit_log::RecordedEvents::default();
                        let $recorded = &mut recorded;
                        let result: Result<_, $crate::database::DatabaseError> = async move { $body }.await;
                        result.map(|value| (value, recorded))
                    };
                    let mut repeats = $crate::database::postgres_pool::Repeats::of_write();
                    loop {
                        let mut leased = own.lease().await?;
                        // Not the default of the server: at a stricter level concurrent writes of the same
                        // rows fail, and the statements here lock what they depend on.
                        let committed: Result<_, $crate::database::DatabaseError> =
                            leased.connection().build_transaction().read_committed().run(attempt.clone()).await;
                        if let Some(committed) = leased.settle(committed, &mut repeats) {
                            let (value, recorded) = committed?;
                            recorded.log();
                            break Ok(value);
                        }
                    }
                }))
                .await
            }
        }
    };
}

/// Declares a trait whose functions are statements, and implements it for the connections of both engines.
///
/// A macro, because diesel's queries have no common trait over the two connections: each body is compiled
/// once for each. A statement takes all that it uses as arguments.
macro_rules! statements {
    (
        $(#[$about:meta])*
        $visibility:vis trait $name:ident {
            $(
                $(#[$doc:meta])*
                async fn $statement:ident(&mut $this:ident $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty $body:block
            )+
        }
    ) => {
        $(#[$about])*
        $visibility trait $name {
            $(
                $(#[$doc])*
                fn $statement(&mut self $(, $argument: $type)*) -> impl Future<Output = $output> + Send;
            )+
        }

        impl $name for $crate::database::sqlite_connection::InlineConnection {
            $(async fn $statement(&mut $this $(, $argument: $type)*) -> $output $body)+
        }

        impl $name for diesel_async::AsyncPgConnection {
            $(async fn $statement(&mut $this $(, $argument: $type)*) -> $output $body)+
        }
    };
}

pub(crate) use read;
pub(crate) use statements;
pub(crate) use write;
