//! Runs queries on the threads that own SQLite's connections, or on a connection of the PostgreSQL pool.
//!
//! [`read!`] and [`write!`] acquire the connection and expand the same body for both engines, so that a query
//! is written once. A query that has started runs to its end even if the caller's future is dropped.

pub mod postgres;
pub mod postgres_url;
pub(super) mod replicas;
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

/// Runs `$body`, which only reads, on a connection without a transaction.
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

/// Runs `$body` in one transaction, which is rolled back if `$body` returns an error.
macro_rules! write {
    ($connections:expr, $connection:ident => $body:block) => {
        match $connections {
            $crate::store::connection::Connections::Sqlite(threads) => {
                threads
                    .write(move |$connection| $crate::store::connection::sqlite::poll_once(async move { $body }))
                    .await
            }
            $crate::store::connection::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.run_detached(async move {
                    let mut pooled = own.get().await?;
                    let connection: &mut diesel_async::AsyncPgConnection = &mut pooled;
                    diesel_async::AsyncConnection::transaction(
                        connection,
                        async move |$connection: &mut diesel_async::AsyncPgConnection| -> Result<_, $crate::store::StoreError> {
                            $body
                        },
                    )
                    .await
                })
                .await
            }
        }
    };
}

pub(crate) use read;
pub(crate) use write;
