//! Reads and writes on a PostgreSQL server, with a time limit on every wait.
//!
//! Work runs in a task of its own ([`PostgresPool::run_write`], [`PostgresPool::run_read`]). If the caller's
//! future is dropped, the transaction still runs to its end, and the next user of the connection does not
//! find a running statement on it. The queries of look-ups run in the task of their lane
//! ([`PostgresPool::query`]), on a pool of their own. If such a query is dropped, as when its replica is
//! excluded, its connection is closed.
//!
//! A commit can wait without limit for a synchronous standby, and PostgreSQL offers no way to stop it that
//! leaves the outcome clear. Its caller gets an error in time, but its connection stays in use: a new one for
//! the next write would only hang too, until the server has no connections left. So the number of writes is
//! limited, the pool is larger than that, and reads always find a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    pooled_connection::deadpool::Object,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    disk_full::DiskFullFailures,
    postgres_connect::{Connector, PostgresOptions},
    postgres_pool::{ConnectionPool, Leased, NO_FREE_CONNECTION, PoolUsage},
    postgres_watch::watch_server,
};
use crate::database::DatabaseError;

/// Runs work on connections to one server. If the URL has several hosts, its `target_session_attrs` decides
/// which of them is used.
#[derive(Clone)]
pub struct PostgresPool {
    pool: ConnectionPool,
    connector: Arc<Connector>,
    address: Arc<str>,
    is_pooled: bool,
    acquire_timeout: Duration,
    answer_timeout: Duration,
    /// Number of writes that failed because the server's disk is full.
    disk_full_failures: DiskFullFailures,
    /// The writes that have a connection or may take one.
    writes: Arc<Semaphore>,
    /// Changes when the server of the connections is no longer the right one. The value is the moment before
    /// which they were opened.
    moves: Arc<watch::Sender<Option<Instant>>>,
    /// Largest number of connections that this pool and those beside it open.
    connections_max: Arc<AtomicUsize>,
}

/// Reasons why a query has no result.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// The connection broke, its prepared statements are outdated, or the query lost against another
    /// transaction. On another connection the query may succeed.
    ConnectionLost(DatabaseError),
    /// There was no connection, the server rejected the query, or it sent no answer within `answer_timeout`.
    Failed(DatabaseError),
}

impl QueryError {
    pub(crate) fn into_error(self) -> DatabaseError {
        let (Self::ConnectionLost(error) | Self::Failed(error)) = self;
        error
    }
}

/// Margin on top of the time limits on the wait for a connection and on a statement, in which the answer of
/// the server travels.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The fewest connections that writes cannot take: one for reads, and one that the check of writes occupies
/// while its commit hangs ([`PostgresPool::check_writes`]).
const READS_MIN: usize = 2;

impl PostgresPool {
    /// Creates the pool and starts the task that closes old connections. The first query connects.
    pub fn open(options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let connector = Arc::new(Connector::new(options)?);
        let size = size_with_reads(options.pool_size, READS_MIN);
        let pool = ConnectionPool::open(options, &connector, size)?;
        let answer_timeout = options.acquire_timeout + options.statement_timeout + ANSWER_MARGIN;
        let moves = Arc::default();
        let mut connections_max = size;
        if connector.is_selective() {
            connections_max += 1;
            tokio::spawn(watch_server(Arc::clone(&connector), pool.clone(), Arc::clone(&moves)));
        }
        Ok(Self {
            pool,
            connector,
            address: options.url.address().into(),
            is_pooled: options.is_pooled,
            acquire_timeout: options.acquire_timeout,
            answer_timeout,
            writes: Arc::new(Semaphore::new(options.pool_size)),
            moves,
            connections_max: Arc::new(AtomicUsize::new(connections_max)),
            disk_full_failures: DiskFullFailures::default(),
        })
    }

    /// Creates a pool of other connections to the same server: both use the same one of several hosts, and
    /// leave it together. `options` are those of this pool, except for the size.
    pub(crate) fn open_beside(&self, options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let size = size_with_reads(options.pool_size, 1);
        let pool = ConnectionPool::open(options, &self.connector, size)?;
        self.connections_max.fetch_add(size, Ordering::Relaxed);
        let (mut moves, own) = (self.moves.subscribe(), pool.clone());
        tokio::spawn(async move {
            while moves.changed().await.is_ok() {
                let moved_at = *moves.borrow_and_update();
                if let Some(moment) = moved_at {
                    own.discard_before(moment);
                }
            }
        });
        Ok(Self { pool, writes: Arc::new(Semaphore::new(options.pool_size)), ..self.clone() })
    }

    /// Returns the largest number of connections that this pool and those beside it open.
    pub(crate) fn connections_max(&self) -> usize {
        AtomicUsize::load(&self.connections_max, Ordering::Relaxed)
    }

    /// Returns `host:port` of the server, for the log.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// True if the settings say that a pooler shares the connections.
    pub(crate) const fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Returns a connection of the pool, within the time limits on waiting and connecting.
    pub(crate) async fn get(&self) -> Result<Object<AsyncPgConnection>, DatabaseError> {
        self.pool.get().await
    }

    /// Returns a connection for one attempt of a transaction. [`Leased::settle`] ends the attempt.
    pub(crate) async fn lease(&self) -> Result<Leased, DatabaseError> {
        self.pool.lease().await
    }

    /// Runs `work`, which writes, in a task of its own. The task goes on if the caller's future is dropped.
    /// If the server sends no answer within `answer_timeout`, the caller gets an error. The task then goes on
    /// until the commit or its connection ends, or until the server is left for another one; until then it
    /// counts as a write.
    pub(crate) async fn run_write<R: Send + 'static>(
        &self,
        work: impl Future<Output = Result<R, DatabaseError>> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let answer = async {
            let waiting = self.pool.count_waiting();
            let permit = timeout(self.acquire_timeout, Arc::clone(&self.writes).acquire_owned()).await;
            let permit = permit.map_err(|_| DatabaseError::unavailable(NO_FREE_CONNECTION))?;
            drop(waiting);
            let (mut moves, grace) = (self.moves.subscribe(), self.answer_timeout);
            let task = tokio::spawn(async move {
                let _permit = permit;
                let abandoned = async {
                    // `changed` fails only if the pool is gone, and `work` holds the pool.
                    let _ = moves.changed().await;
                    // The answer of the server that was left may still arrive.
                    sleep(grace).await;
                };
                tokio::select! {
                    result = work => result,
                    () = abandoned => Err(DatabaseError::unavailable("the server is no longer used")),
                }
            });
            task.await.map_err(DatabaseError::unavailable)?
        };
        let result = timeout(self.answer_timeout, answer).await.map_err(|_| no_answer())?;
        self.disk_full_failures.counted(result)
    }

    /// Returns the count of writes that failed because the server's disk is full.
    pub(crate) const fn disk_full_failures(&self) -> &DiskFullFailures {
        &self.disk_full_failures
    }

    /// Returns how the connections of this pool are used now.
    pub(crate) fn usage(&self) -> PoolUsage {
        self.pool.usage()
    }

    /// Runs `work`, which only reads, in a task of its own. The task goes on if the caller's future is
    /// dropped. If the server sends no answer within `answer_timeout`, the caller gets an error and the
    /// connection is closed.
    pub(crate) async fn run_read<R: Send + 'static>(
        &self,
        work: impl Future<Output = Result<R, DatabaseError>> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let limited = timeout(self.answer_timeout, work);
        let finished = tokio::spawn(limited).await.map_err(DatabaseError::unavailable)?;
        finished.map_err(|_| no_answer())?
    }

    /// Runs a query that only reads. If the server does not answer in time, or the caller's future is
    /// dropped, the connection is closed: its next user would have to wait for the outstanding answer.
    pub(crate) async fn query<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, DatabaseError>,
    ) -> Result<R, QueryError> {
        let mut leased = self.lease().await.map_err(|error| match error {
            error if error.is_connection_lost() => QueryError::ConnectionLost(error),
            error => QueryError::Failed(error),
        })?;
        let answer = timeout(self.answer_timeout, query(leased.connection())).await;
        let answer = answer.map_err(|_| QueryError::Failed(no_answer()))?;
        let Err(error) = answer else {
            leased.release();
            return answer.map_err(QueryError::Failed);
        };
        if leased.is_broken() || error.is_connection_lost() {
            return Err(QueryError::ConnectionLost(error.after_lost_connection()));
        }
        if error.remedy().is_some() {
            leased.discard_older();
            return Err(QueryError::ConnectionLost(error));
        }
        leased.release();
        Err(QueryError::Failed(error))
    }

    /// Checks these rights (table and privilege, in the order of the tables), takes the lock of a writer on
    /// each table of which rows are changed or deleted, one after the other, and writes to the WAL. Runs in
    /// the task of the caller, which holds the connection until the server answers.
    pub(crate) async fn check_writes(&self, rights: &[(&str, &str)]) -> Result<(), DatabaseError> {
        // The WAL position as a number; NULL if the server refuses writes. The message is for no reader.
        const WRITE: &str = "SELECT CASE WHEN pg_is_in_recovery() \
            OR current_setting('transaction_read_only')::boolean THEN NULL \
            ELSE (pg_logical_emit_message(true, 'kairos-identity', 'health') - '0/0')::bigint END AS position";
        let mut connection = self.get().await?;
        let missing: Option<MissingRight> =
            diesel::sql_query(missing_right(rights)).get_result(&mut connection).await.optional()?;
        if let Some(MissingRight { name, table_exists: false, .. }) = missing {
            return Err(DatabaseError::unavailable(format!(
                "there is no table {name}, or it is in a schema that the role of database.url does not search"
            )));
        }
        if let Some(MissingRight { name, privilege, .. }) = missing {
            return Err(DatabaseError::unavailable(format!(
                "the role of database.url lacks the right to {privilege} on {name}: grant it to the role"
            )));
        }
        for table in changed_tables(rights) {
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
        Arc::clone(&self.connector).connect().await.map_err(DatabaseError::unavailable)
    }

    /// Returns the time limit on a whole read or write: the sum of the limits on the wait for a connection
    /// and on a statement, and a margin.
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
        timeout(self.answer_timeout, answer).await.map_err(|_| no_answer())?
    }

    /// Takes a connection out of the pool for good, for work that needs it for a long time.
    pub(crate) async fn detach(&self) -> Result<AsyncPgConnection, DatabaseError> {
        self.get().await.map(Object::take)
    }
}

/// The error of work that has exceeded its time limit.
fn no_answer() -> DatabaseError {
    DatabaseError::unavailable(
        "the server did not answer within database.acquire-timeout and database.statement-timeout together: it hangs, \
         or a commit waits for a standby",
    )
}

/// Returns the size of a pool with this number of connections for writes, an eighth more, and at least
/// `reads_min` more. Writes cannot take the others, so reads find one even while commits hang on all of them.
fn size_with_reads(writes: usize, reads_min: usize) -> usize {
    writes + (writes / 8).max(reads_min)
}

/// A right that the role lacks.
#[derive(QueryableByName)]
struct MissingRight {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    privilege: String,
    #[diesel(sql_type = Bool)]
    table_exists: bool,
}

/// Returns the query for the first of these rights (table and privilege) that the role lacks.
fn missing_right(rights: &[(&str, &str)]) -> String {
    let rights: Vec<String> =
        rights.iter().map(|(table, privilege)| format!("('{table}', '{privilege}')")).collect();
    format!(
        "SELECT name, privilege, to_regclass(name) IS NOT NULL AS table_exists \
         FROM (VALUES {}) AS needed (name, privilege) \
         WHERE has_table_privilege(to_regclass(name), privilege) IS NOT TRUE LIMIT 1",
        rights.join(", ")
    )
}

/// Returns the tables of which these rights change or delete rows, each once.
fn changed_tables<'a>(rights: &[(&'a str, &str)]) -> Vec<&'a str> {
    let changing = rights.iter().filter(|(_, privilege)| ["UPDATE", "DELETE"].contains(privilege));
    let mut tables: Vec<&str> = changing.map(|(table, _)| *table).collect();
    tables.dedup();
    tables
}

/// The result of a write check.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
}
