//! Runs queries on the threads that own SQLite's connections, or on a connection of the PostgreSQL pool.
//!
//! [`read!`] and [`write!`] acquire the connection and expand the same body for both engines, so that a query
//! is written once; [`statements!`] does so for statements that several transactions share. A query that has
//! started runs to its end even if the caller's future is dropped.

pub mod postgres;
pub(super) mod replicas;
mod replication;
pub(crate) mod session;
pub mod sqlite;

use self::{postgres::PostgresPool, sqlite::SqliteThreads};

/// The connections of one of the two engines.
#[derive(Clone)]
pub enum Connections {
    /// Threads that own the connections to one SQLite file.
    Sqlite(SqliteThreads),
    /// A pool of connections to a PostgreSQL server.
    Postgres(PostgresPool),
}

/// Runs `$body`, which only reads, on a connection without a transaction. A macro for the same reason as
/// [`write!`].
macro_rules! read {
    ($connections:expr, $connection:ident => $body:block) => {
        match $connections {
            $crate::store::connection::Connections::Sqlite(threads) => {
                threads
                    .read(move |$connection| {
                        $crate::store::connection::sqlite::poll_once(async move { $body })
                    })
                    .await
            }
            $crate::store::connection::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.run_detached(async move {
                    let mut pooled = own.get().await?;
                    let $connection: &mut diesel_async::AsyncPgConnection = &mut pooled;
                    let result: Result<_, $crate::store::StoreError> = async move { $body }.await;
                    result
                })
                .await
            }
        }
    };
}

/// Runs `$body` in one transaction, which is rolled back if `$body` returns an error. With `$recorded`, a
/// `RecordedEvents` for the audit events of the transaction, which are logged after the commit.
///
/// A macro, because the two connections have different types and diesel's queries have no common trait over
/// them: `$body` is compiled once for each.
macro_rules! write {
    ($connections:expr, $connection:ident => $body:block) => {
        $crate::store::connection::write!($connections, $connection, _recorded => $body)
    };
    ($connections:expr, $connection:ident, $recorded:ident => $body:block) => {
        match $connections {
            $crate::store::connection::Connections::Sqlite(threads) => {
                threads
                    .write(move |$connection| {
                        let mut recorded = $crate::store::audit_log::RecordedEvents::default();
                        let $recorded = &mut recorded;
                        let result = $crate::store::connection::sqlite::poll_once(async move { $body });
                        result.map(|value| (value, recorded))
                    })
                    .await
            }
            $crate::store::connection::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.run_detached(async move {
                    let mut pooled = own.get().await?;
                    let connection: &mut diesel_async::AsyncPgConnection = &mut pooled;
                    let committed: Result<_, $crate::store::StoreError> = diesel_async::AsyncConnection::transaction(
                        connection,
                        async move |$connection: &mut diesel_async::AsyncPgConnection| {
                            let mut recorded = $crate::store::audit_log::RecordedEvents::default();
                            let $recorded = &mut recorded;
                            let result: Result<_, $crate::store::StoreError> = async move { $body }.await;
                            result.map(|value| (value, recorded))
                        },
                    )
                    .await;
                    committed.map(|(value, recorded)| {
                        recorded.log();
                        value
                    })
                })
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

        impl $name for $crate::store::connection::sqlite::InlineConnection {
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
