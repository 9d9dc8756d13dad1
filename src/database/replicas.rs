//! PostgreSQL replicas, which serve look-ups, and the watch that decides which of them are in use: those
//! whose data is not older than `lag_max`.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel_async::AsyncPgConnection;
use futures_util::{FutureExt, future};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    postgres::PostgresPool,
    replication::{Positions, Probe},
};
use crate::database::DatabaseError;

/// Shortest interval between two probes of a server. The interval is a quarter of `lag_max`, but not shorter
/// than this and not longer than [`PROBE_INTERVAL_MAX`].
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Longest interval between two probes of a server.
const PROBE_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// The replicas of a primary.
pub(crate) struct Replicas {
    all: Vec<Replica>,
    turn: AtomicUsize,
    lag_max: Duration,
    primary_positions: Mutex<Positions>,
}

/// One replica.
pub(crate) struct Replica {
    pool: PostgresPool,
    is_used: watch::Sender<bool>,
}

impl Replicas {
    /// Takes the pools of the replicas. No replica is used before [`Replicas::watch`] has found it current.
    pub(crate) fn new(pools: Vec<PostgresPool>, lag_max: Duration) -> Self {
        let all =
            pools.into_iter().map(|pool| Replica { pool, is_used: watch::Sender::new(false) }).collect();
        Self { all, turn: AtomicUsize::new(0), lag_max, primary_positions: Mutex::default() }
    }

    /// Returns one of the replicas in use, round robin; `None` if there is none.
    pub(crate) fn pick(&self) -> Option<&Replica> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        let (before, from) = self.all.split_at_checked(first)?;
        from.iter().chain(before).find(|replica| replica.is_used())
    }

    /// True if at least one replica is in use.
    pub(crate) fn any_in_use(&self) -> bool {
        self.all.iter().any(Replica::is_used)
    }

    /// Probes the primary and all replicas until the future is dropped.
    pub(crate) async fn watch(&self, primary: &PostgresPool) {
        loop {
            let replicas = future::join_all(self.all.iter().map(|replica| self.watch_one(replica)));
            let watch = future::join(self.watch_primary(primary), replicas);
            // If the watch ended, a replica that is in use would stay so forever.
            if AssertUnwindSafe(watch).catch_unwind().await.is_err() {
                self.all.iter().for_each(|replica| replica.exclude("the replica watch panicked"));
            }
        }
    }

    async fn watch_primary(&self, primary: &PostgresPool) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(primary));
        loop {
            let at = ticks.tick().await;
            // The health check reports a primary that is down; an error needs no handling here.
            if let Ok(report) = probe.query().await {
                self.positions().record(&report, at, self.lag_max);
            }
        }
    }

    async fn watch_one(&self, replica: &Replica) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(&replica.pool));
        let mut earlier = None;
        loop {
            ticks.tick().await;
            match probe.query().await {
                Ok(report) => match self.positions().check(&report, &mut earlier) {
                    Ok(()) => replica.include(),
                    Err(reason) => replica.exclude(reason),
                },
                Err(error) => replica.exclude(&error.chain()),
            }
        }
    }

    /// Returns the positions that the primary reported.
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.primary_positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticks(&self) -> tokio::time::Interval {
        let mut ticks = interval((self.lag_max / 4).clamp(PROBE_INTERVAL_MIN, PROBE_INTERVAL_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

impl Replica {
    /// Runs a query that only reads. If it fails for any reason, the replica is excluded until the watch
    /// finds it usable again. If the watch or another query excludes the replica meanwhile, the call returns
    /// without waiting for the answer.
    ///
    /// # Errors
    /// [`Excluded`] when another server must be queried.
    pub(crate) async fn query<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, DatabaseError>,
    ) -> Result<R, Excluded> {
        let mut is_used = self.is_used.subscribe();
        let excluded = is_used.wait_for(|is_used| !is_used);
        tokio::select! {
            answer = self.pool.query(query) => answer.map_err(|error| {
                self.exclude(&error.into_error().chain());
                Excluded
            }),
            _ = excluded => Err(Excluded),
        }
    }

    fn is_used(&self) -> bool {
        *self.is_used.borrow()
    }

    fn include(&self) {
        if !self.is_used.send_replace(true) {
            tracing::info!("Replica {} serves look-ups", self.pool.address());
        }
    }

    fn exclude(&self, reason: &str) {
        if self.is_used.send_replace(false) {
            tracing::warn!("Replica {} excluded from look-ups: {reason}", self.pool.address());
        }
    }
}

/// The replica is excluded, so it has not answered the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excluded;
