//! A PostgreSQL connection pool in which every wait has a time limit.
//!
//! Work runs in a task of its own ([`PostgresPool::run_detached`]). If the caller's future is dropped, the
//! transaction still runs to its end, and the next user of the connection does not find a running statement
//! on it. Look-ups, which only read, run in the task of the caller ([`PostgresPool::query`]); if a look-up is
//! dropped, its connection is closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Manager, TimeoutType, Timeouts},
};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable},
};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    pooled_connection::{
        self, AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod,
        deadpool::Object, deadpool::Pool,
    },
};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::postgres_connect::{Connector, PostgresOptions};
use crate::database::DatabaseError;

/// A pool of connections to one server.
#[derive(Clone)]
pub struct PostgresPool {
    pool: Pool<AsyncPgConnection>,
    address: Arc<str>,
    answer_timeout: Duration,
    /// Number of operations that failed because the server's disk is full.
    disk_full_failures: Arc<AtomicU64>,
}

/// Reasons why a query has no result.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// The connection broke during the query; another connection may work.
    ConnectionLost(DatabaseError),
    /// There was no connection, the server rejected the query, or the server sent no answer within the sum of
    /// all time limits.
    Failed(DatabaseError),
}

impl QueryError {
    pub(crate) fn into_error(self) -> DatabaseError {
        let (Self::ConnectionLost(error) | Self::Failed(error)) = self;
        error
    }
}

/// Margin on top of the sum of the time limits, in which the answer of the server travels.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Interval at which connections that are too old or idle are closed.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

impl PostgresPool {
    /// Creates the pool and starts the task that closes old connections. The first query connects.
    pub fn open(options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let connector = Arc::new(Connector::new(options)?);
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |_| Arc::clone(&connector).connect().boxed());
        let pool = Pool::builder(AsyncDieselConnectionManager::new_with_config("", config))
            .max_size(options.pool_size)
            .timeouts(Timeouts {
                wait: Some(options.acquire_timeout),
                create: Some(options.connect_timeout),
                recycle: Some(options.connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(DatabaseError::unavailable)?;
        tokio::spawn(close_old_connections(pool.clone(), options.idle_timeout, options.connection_lifetime));
        let answer_timeout = options.acquire_timeout + options.statement_timeout + ANSWER_MARGIN;
        let address = options.url.address().into();
        Ok(Self { pool, address, answer_timeout, disk_full_failures: Arc::default() })
    }

    /// Returns `host:port` of the server, for the log.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns a connection of the pool, within the time limits on waiting and connecting.
    pub(crate) async fn get(&self) -> Result<Object<AsyncPgConnection>, DatabaseError> {
        self.pool.get().await.map_err(unavailable)
    }

    /// Runs `work` in a task of its own, which goes on if the caller's future is dropped. If the server sends
    /// no answer within the sum of all time limits, the caller gets an error, and the task ends when its
    /// connection breaks.
    pub(crate) async fn run_detached<R: Send + 'static>(
        &self,
        work: impl Future<Output = Result<R, DatabaseError>> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let finished = timeout(self.answer_timeout, tokio::spawn(work)).await;
        let result = finished.map_err(DatabaseError::unavailable)?.map_err(DatabaseError::unavailable)?;
        result.inspect_err(|error| {
            if error.is_disk_full() {
                self.disk_full_failures.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Returns the number of operations that failed because the server's disk is full.
    pub(crate) fn disk_full_failures(&self) -> u64 {
        AtomicU64::load(&self.disk_full_failures, Ordering::Relaxed)
    }

    /// Runs a query that only reads. If the server does not answer in time, or the caller's future is
    /// dropped, the connection is closed: its next user would have to wait for the outstanding answer.
    pub(crate) async fn query<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, DatabaseError>,
    ) -> Result<R, QueryError> {
        let connection = self.get().await.map_err(|error| match error {
            error if error.is_connection_lost() => QueryError::ConnectionLost(error),
            error => QueryError::Failed(error),
        })?;
        let mut in_flight = InFlight(Some(connection));
        let answer = timeout(self.answer_timeout, query(in_flight.connection())).await;
        let answer = answer.map_err(|elapsed| QueryError::Failed(DatabaseError::unavailable(elapsed)))?;
        if let Err(error) = &answer
            && (in_flight.connection().is_broken() || error.is_connection_lost())
        {
            return answer.map_err(QueryError::ConnectionLost);
        }
        in_flight.release();
        answer.map_err(QueryError::Failed)
    }

    /// Takes the lock of a writer on each of these tables, one after the other, and writes to the WAL. Runs
    /// in the task of the caller, which holds the connection until the server answers.
    pub(crate) async fn check_writes(&self, tables: &[&str]) -> Result<(), DatabaseError> {
        // The WAL position as a number; NULL if the server refuses writes. The message is for no reader.
        const WRITE: &str = "SELECT CASE WHEN pg_is_in_recovery() \
            OR current_setting('transaction_read_only')::boolean THEN NULL \
            ELSE (pg_logical_emit_message(true, 'kairos-identity', 'health') - '0/0')::bigint END AS position";
        let mut connection = self.get().await?;
        for table in tables {
            let lock = format!("LOCK TABLE {table} IN ROW EXCLUSIVE MODE");
            // One transaction for each table: with two locks at once, a migration could deadlock.
            let connection: &mut AsyncPgConnection = &mut connection;
            let locked: Result<(), DatabaseError> = connection
                .transaction(async move |connection: &mut AsyncPgConnection| {
                    Ok(connection.batch_execute(&lock).await?)
                })
                .await;
            locked?;
        }
        let written: Written = diesel::sql_query(WRITE).get_result(&mut connection).await?;
        match written.position {
            Some(_) => Ok(()),
            None => Err(DatabaseError::unavailable(
                "the server accepts no writes: it is a standby, or default_transaction_read_only is on",
            )),
        }
    }

    /// Opens a new connection outside the pool, for work that must not wait for a free one.
    pub(crate) async fn connect(&self) -> Result<AsyncPgConnection, DatabaseError> {
        self.pool.manager().create().await.map_err(DatabaseError::unavailable)
    }

    /// Returns the longest time in which a server that keeps its limits answers, the wait for a connection
    /// included.
    pub(crate) const fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Runs a query as [`PostgresPool::query`] does, on a new connection: if one connection was lost, the
    /// idle ones in the pool may be lost too.
    pub(crate) async fn query_on_new_connection<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, DatabaseError>,
    ) -> Result<R, DatabaseError> {
        let answer = async {
            let mut connection = self.connect().await?;
            query(&mut connection).await
        };
        timeout(self.answer_timeout, answer).await.map_err(DatabaseError::unavailable)?
    }

    /// Takes a connection out of the pool for good, for work that needs it for a long time.
    pub(crate) async fn detach(&self) -> Result<AsyncPgConnection, DatabaseError> {
        self.get().await.map(Object::take)
    }
}

/// The result of a write check.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
}

/// Converts an error of the pool. The texts of the pool's library name neither the cause nor a setting.
fn unavailable(error: PoolError) -> DatabaseError {
    match error {
        managed::PoolError::Backend(error) => DatabaseError::unavailable(error),
        managed::PoolError::Timeout(TimeoutType::Wait) => {
            DatabaseError::unavailable("no connection became free within database.acquire-timeout")
        }
        managed::PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            DatabaseError::unavailable(
                "the server did not accept a connection within database.connect-timeout",
            )
        }
        other => DatabaseError::unavailable(other),
    }
}

/// A connection whose query is running. If it is dropped before the answer has arrived, it does not return to
/// the pool.
struct InFlight(Option<Object<AsyncPgConnection>>);

impl InFlight {
    fn connection(&mut self) -> &mut AsyncPgConnection {
        self.0.as_mut().expect("the connection is present until it is released")
    }

    /// Returns the connection to the pool after the answer has arrived.
    fn release(mut self) {
        self.0.take();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

type PoolError = managed::PoolError<pooled_connection::PoolError>;

async fn close_old_connections(pool: Pool<AsyncPgConnection>, idle: Duration, lifetime: Duration) {
    let mut ticks = tokio::time::interval(REAP_INTERVAL);
    while !pool.is_closed() {
        ticks.tick().await;
        pool.retain(|_, metrics| metrics.last_used() < idle && metrics.age() < lifetime);
    }
}
