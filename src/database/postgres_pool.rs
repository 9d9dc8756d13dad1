//! The open connections to a PostgreSQL server: their limits, their age, and what happens to one after an
//! attempt.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, TimeoutType, Timeouts},
};
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        self, AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod,
        deadpool::Object, deadpool::Pool,
    },
};
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use super::{
    postgres_connect::{Connector, PostgresOptions},
    sql_state::Remedy,
};
use crate::database::DatabaseError;

/// Interval at which connections that are too old or idle are closed.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum number of repetitions of a transaction that lost against another one or met outdated prepared
/// statements, and of a read whose connection was lost. A deadlock takes a second before PostgreSQL notices
/// it (`deadlock_timeout`), and the caller waits at most 4.5 s by default.
const REPEATS_MAX: u32 = 3;

/// Interval at which a caller that the server refused for lack of connections looks for a free one in the
/// pool.
const FREE_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Number of these checks between two attempts to connect to a server that had no free connection. Each
/// attempt costs the server a process.
const CHECKS_PER_ATTEMPT: u32 = 50;

/// The error of a caller that waited for a connection for longer than the setting allows.
pub(super) const NO_FREE_CONNECTION: &str = "no connection became free within database.acquire-timeout: more calls wait for PostgreSQL than database.pool-size \
     connections can serve";

type PoolError = managed::PoolError<pooled_connection::PoolError>;

/// The open connections, of which a caller leases one at a time.
#[derive(Clone)]
pub(crate) struct ConnectionPool {
    pool: Pool<AsyncPgConnection>,
    /// Connections that were opened before this moment are closed instead of used.
    discarded_before: Arc<Mutex<Option<Instant>>>,
    acquire_timeout: Duration,
    /// Number of operations that wait for a connection, or for the right to take one.
    waiting: Arc<AtomicUsize>,
}

/// An operation that is counted as waiting until this is dropped.
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionPool {
    /// Creates the pool and starts the task that closes old connections. The first lease connects.
    pub(super) fn open(
        options: &PostgresOptions,
        connector: &Arc<Connector>,
        size: usize,
    ) -> Result<Self, DatabaseError> {
        let mut config = ManagerConfig::default();
        // Without a query before each use, which would cost a round trip.
        config.recycling_method = RecyclingMethod::Fast;
        let for_pool = Arc::clone(connector);
        // The connector has the URL, so the manager below gets an empty one.
        config.custom_setup = Box::new(move |_| Arc::clone(&for_pool).connect().boxed());
        let pool = Pool::builder(AsyncDieselConnectionManager::new_with_config("", config))
            .max_size(size)
            .timeouts(Timeouts {
                wait: Some(options.acquire_timeout),
                create: Some(connector.time_limit()),
                recycle: Some(options.connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(DatabaseError::unavailable)?;
        tokio::spawn(close_old_connections(pool.clone(), options.idle_timeout, options.connection_lifetime));
        Ok(Self {
            pool,
            discarded_before: Arc::default(),
            acquire_timeout: options.acquire_timeout,
            waiting: Arc::default(),
        })
    }

    /// Counts an operation as waiting until the result is dropped.
    pub(super) fn count_waiting(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Returns a connection, within the time limits on waiting and connecting. If the server has no free
    /// connection, waits for one of the pool for `acquire_timeout` more, as a caller does whose pool is as
    /// large as it may be.
    pub(super) async fn get(&self) -> Result<Object<AsyncPgConnection>, DatabaseError> {
        let _waiting = self.count_waiting();
        let refusal = match self.get_at_once().await {
            Err(error) if error.has_no_free_connection() => error,
            result => return result,
        };
        let later = async {
            loop {
                self.wait_for_free_connection().await;
                match self.get_at_once().await {
                    Err(error) if error.has_no_free_connection() => {}
                    result => return result,
                }
            }
        };
        timeout(self.acquire_timeout, later).await.unwrap_or(Err(refusal))
    }

    /// Returns how the connections are used now.
    pub(super) fn usage(&self) -> PoolUsage {
        let status = self.pool.status();
        let (idle, waiting) = (status.available, AtomicUsize::load(&self.waiting, Ordering::Relaxed));
        PoolUsage { used: status.size.saturating_sub(idle), idle, max: status.max_size, waiting }
    }

    /// Returns when the pool has a free connection, or when the server may be asked for a new one again.
    async fn wait_for_free_connection(&self) {
        for _ in 0..CHECKS_PER_ATTEMPT {
            sleep(FREE_CHECK_INTERVAL).await;
            if self.pool.status().available > 0 {
                return;
            }
        }
    }

    /// Returns a free connection or a new one.
    async fn get_at_once(&self) -> Result<Object<AsyncPgConnection>, DatabaseError> {
        loop {
            let connection = self.pool.get().await.map_err(unavailable)?;
            let discarded_before = *self.discarded_before.lock().unwrap_or_else(PoisonError::into_inner);
            if discarded_before.is_none_or(|moment| Object::metrics(&connection).created > moment) {
                return Ok(connection);
            }
            drop(Object::take(connection));
        }
    }

    /// Closes the connections that were opened before `moment`: at once if they are idle, otherwise after
    /// their use.
    pub(super) fn discard_before(&self, moment: Instant) {
        let mut discarded_before = self.discarded_before.lock().unwrap_or_else(PoisonError::into_inner);
        *discarded_before = (*discarded_before).max(Some(moment));
        drop(discarded_before);
        self.pool.retain(|_, metrics| metrics.created > moment);
    }

    /// Returns a connection for one attempt of a transaction. [`Leased::settle`] ends the attempt.
    pub(super) async fn lease(&self) -> Result<Leased, DatabaseError> {
        let connection = self.get().await?;
        let metrics = Object::metrics(&connection);
        let since = metrics.recycled.unwrap_or(metrics.created);
        Ok(Leased { connection: Some(connection), since, pool: self.clone() })
    }
}

/// How the connections of a pool are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolUsage {
    /// Number of connections that are leased to an operation.
    pub(crate) used: usize,
    /// Number of open connections that are free.
    pub(crate) idle: usize,
    /// Largest number of connections.
    pub(crate) max: usize,
    /// Number of operations that wait for a connection.
    pub(crate) waiting: usize,
}

/// Converts an error of the pool. The texts of the pool's library name neither the cause nor a setting.
fn unavailable(error: PoolError) -> DatabaseError {
    match error {
        managed::PoolError::Backend(error) => DatabaseError::unavailable(error),
        managed::PoolError::Timeout(TimeoutType::Wait) => DatabaseError::unavailable(NO_FREE_CONNECTION),
        managed::PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            DatabaseError::unavailable(
                "the server did not accept a connection within database.connect-timeout",
            )
        }
        other => DatabaseError::unavailable(other),
    }
}

/// Closes the free connections that are too old or were idle for too long. Runs until the runtime ends, since
/// nothing closes the pool.
async fn close_old_connections(pool: Pool<AsyncPgConnection>, idle: Duration, lifetime: Duration) {
    let mut ticks = tokio::time::interval(REAP_INTERVAL);
    while !pool.is_closed() {
        ticks.tick().await;
        pool.retain(|_, metrics| metrics.last_used() < idle && metrics.age() < lifetime);
    }
}

/// How often a transaction or a read may still be repeated.
#[derive(Debug)]
pub(crate) struct Repeats {
    left: u32,
    is_read: bool,
}

impl Repeats {
    /// For a transaction that writes. It is not repeated after the loss of its connection, because it may
    /// have been committed.
    pub(crate) const fn of_write() -> Self {
        Self { left: REPEATS_MAX, is_read: false }
    }

    /// For statements that only read, which can be repeated after the loss of their connection too.
    pub(crate) const fn of_read() -> Self {
        Self { left: REPEATS_MAX, is_read: true }
    }
}

/// A connection on which statements run. If it is dropped before they have ended, it does not return to the
/// pool.
pub(crate) struct Leased {
    connection: Option<Object<AsyncPgConnection>>,
    /// The time of the lease. An error on this connection says nothing about connections that were opened
    /// later.
    since: Instant,
    pool: ConnectionPool,
}

impl Leased {
    pub(crate) fn connection(&mut self) -> &mut AsyncPgConnection {
        self.connection.as_mut().expect("the connection is present until it is released")
    }

    /// True if the connection ended during a statement.
    pub(super) fn is_broken(&mut self) -> bool {
        self.connection().is_broken()
    }

    /// Ends an attempt: returns the connection to the pool unless it is unusable, and returns the result;
    /// `None` if the transaction has to be run again, since nothing of it was committed.
    pub(crate) fn settle<R>(
        mut self,
        result: Result<R, DatabaseError>,
        repeats: &mut Repeats,
    ) -> Option<Result<R, DatabaseError>> {
        let Err(error) = result else {
            self.release();
            return Some(result);
        };
        let is_broken = self.is_broken();
        let error = if is_broken { error.after_lost_connection() } else { error };
        let is_lost = is_broken || error.is_connection_lost();
        let remedy = if is_lost && repeats.is_read { Some(Remedy::Repeat) } else { error.remedy() };
        if remedy == Some(Remedy::NewConnection) {
            // Other connections have prepared the same statements.
            self.discard_older();
        } else if !is_lost && !error.is_read_only() {
            self.release();
        }
        // In all other cases the connection is closed when `self` is dropped. That includes the refusal of a
        // write: a new connection may reach the server that accepts writes by now.
        if remedy.is_none() || repeats.left == 0 {
            return Some(Err(error));
        }
        repeats.left -= 1;
        None
    }

    /// Closes this connection after its use, and all that were open when it was leased.
    pub(super) fn discard_older(&self) {
        self.pool.discard_before(self.since);
    }

    /// Returns the connection to the pool after the answer has arrived.
    pub(super) fn release(&mut self) {
        self.connection.take();
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.connection.take().map(Object::take);
    }
}
