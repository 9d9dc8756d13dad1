//! Where a query runs: on SQLite's own threads, or on a connection from PostgreSQL's pool.
//!
//! [`read!`] and [`write!`] open the right one and expand the same body for each, so that a query is written once. Both
//! finish what they began even if the caller goes away.

pub mod postgres;
pub mod postgres_url;
pub(super) mod replicas;
pub(super) mod session;
pub mod sqlite;

use self::{postgres::PostgresPool, sqlite::SqliteThreads};

/// The two engines.
#[derive(Clone)]
pub enum Connections {
    /// Threads that own their connections to one file.
    Sqlite(SqliteThreads),
    /// A pool of connections to a server.
    Postgres(PostgresPool),
}

/// Runs `$body` on a connection outside a transaction, for what only reads.
macro_rules! read {
    ($connections:expr, $connection:ident => $body:block) => {
        match $connections {
            $crate::store::connection::Connections::Sqlite(threads) => {
                threads
                    .read(move |$connection| $crate::store::connection::sqlite::at_once(async move { $body }))
                    .await
            }
            $crate::store::connection::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.to_the_end(async move {
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

/// Runs `$body` in one transaction, rolled back when it gives an error.
macro_rules! write {
    ($connections:expr, $connection:ident => $body:block) => {
        match $connections {
            $crate::store::connection::Connections::Sqlite(threads) => {
                threads
                    .write(move |$connection| $crate::store::connection::sqlite::at_once(async move { $body }))
                    .await
            }
            $crate::store::connection::Connections::Postgres(pool) => {
                let own = pool.clone();
                pool.to_the_end(async move {
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
