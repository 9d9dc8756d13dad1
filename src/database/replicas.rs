//! PostgreSQL replicas, which serve look-ups, and their watch. It decides which replicas are in use: those
//! with the data of the primary, not older than `lag_max`.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel_async::AsyncPgConnection;
use futures_util::{FutureExt, future};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    heartbeat::{BEAT_INTERVAL, Heartbeats, RETRY_INTERVAL, write_beat},
    postgres::PostgresPool,
    replication::{EarlierReport, NO_HEARTBEAT, Positions, Probe, ServerStatus, is_temporary},
};
use crate::database::DatabaseError;

/// Shortest interval between two probes of a server. The interval is a quarter of `lag_max`, but not shorter
/// than this and not longer than [`PROBE_INTERVAL_MAX`].
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Longest interval between two probes of a server.
const PROBE_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// How long a replica has at the start to catch up, on top of the lag limit, before the log says that it is
/// not used.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// The replicas of a primary.
pub(crate) struct Replicas {
    all: Vec<Replica>,
    primary: PostgresPool,
    turn: AtomicUsize,
    lag_max: Duration,
    primary_positions: Mutex<Positions>,
    heartbeats: Mutex<Heartbeats>,
}

/// One replica.
pub(crate) struct Replica {
    pool: PostgresPool,
    is_used: watch::Sender<bool>,
    /// True once the log says whether the replica is used.
    is_reported: AtomicBool,
    /// Why the replica was excluded last; empty before its first check.
    excluded_because: Mutex<String>,
}

/// A replica, for a report to the operator.
#[derive(Debug, Clone)]
pub struct ReplicaState {
    /// `host:port`.
    pub address: String,
    /// Why the replica serves no look-ups; `None` if it does.
    pub excluded_because: Option<String>,
}

impl Replicas {
    /// Takes the pools of the replicas and of their primary. No replica is used before [`Replicas::watch`]
    /// has found it current.
    pub(crate) fn new(pools: Vec<PostgresPool>, primary: PostgresPool, lag_max: Duration) -> Self {
        let replica = |pool| Replica {
            pool,
            is_used: watch::Sender::new(false),
            is_reported: AtomicBool::new(false),
            excluded_because: Mutex::default(),
        };
        Self {
            all: pools.into_iter().map(replica).collect(),
            primary,
            turn: AtomicUsize::new(0),
            lag_max,
            primary_positions: Mutex::default(),
            heartbeats: Mutex::default(),
        }
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

    /// Waits until every replica is used, but no longer than a replica may take to catch up at the start.
    /// Returns the state of each.
    pub(crate) async fn states_after_start(&self) -> Vec<ReplicaState> {
        let limit = self.lag_max + START_PATIENCE + PROBE_INTERVAL_MAX * 2;
        let all_used = future::join_all(self.all.iter().map(|replica| async {
            // Fails only if the sender is gone, and `self` holds it.
            let _ = replica.is_used.subscribe().wait_for(|is_used| *is_used).await;
        }));
        let _ = timeout(limit, all_used).await;
        self.all.iter().map(Replica::state).collect()
    }

    /// Returns the number of replicas.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns the number of replicas in use.
    pub(crate) fn count_used(&self) -> usize {
        self.all.iter().filter(|replica| replica.is_used()).count()
    }

    /// Probes the primary and all replicas until the future is dropped.
    pub(crate) async fn watch(&self) {
        loop {
            let replicas = future::join_all(self.all.iter().map(|replica| self.watch_one(replica)));
            let watch = future::join3(self.write_heartbeats(), self.watch_primary(), replicas);
            // If the watch ended, a replica that is in use would stay so forever.
            if AssertUnwindSafe(watch).catch_unwind().await.is_err() {
                self.all.iter().for_each(|replica| replica.exclude("the replica watch panicked"));
            }
        }
    }

    async fn write_heartbeats(&self) {
        let mut ticks = interval(RETRY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at = ticks.tick().await;
            let (instance, number) = {
                let mut heartbeats = self.heartbeats();
                (heartbeats.instance(), heartbeats.begin(at))
            };
            match write_beat(&self.primary, instance, number).await {
                Ok(instance) => {
                    self.heartbeats().acknowledge(instance);
                    tokio::time::sleep(BEAT_INTERVAL).await;
                }
                Err(error) => tracing::debug!(error = %error.chain(), "Heartbeat not written"),
            }
        }
    }

    async fn watch_primary(&self) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(&self.primary));
        loop {
            let at = ticks.tick().await;
            let instance = self.heartbeats().instance();
            // The health check reports a primary that is down; an error needs no handling here.
            if let Ok(report) = probe.query(instance).await {
                self.positions().record(&report, at, self.lag_max);
            }
        }
    }

    async fn watch_one(&self, replica: &Replica) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(&replica.pool));
        let (mut earlier, mut first_tick) = (None, None);
        loop {
            let at = ticks.tick().await;
            let is_starting =
                at.duration_since(*first_tick.get_or_insert(at)) < self.lag_max + START_PATIENCE;
            let instance = self.heartbeats().instance();
            match probe.query(instance).await {
                Ok(report) => match self.check(&report, &mut earlier) {
                    Ok(()) => replica.include(),
                    Err(reason) if is_starting && is_temporary(reason) => replica.exclude_quietly(reason),
                    Err(reason) => replica.exclude(reason),
                },
                Err(error) => replica.exclude(&error.chain()),
            }
        }
    }

    /// Checks that look-ups may query a server. The error says why they may not.
    fn check(&self, report: &ServerStatus, earlier: &mut Option<EarlierReport>) -> Result<(), &'static str> {
        let last_report = {
            let positions = self.positions();
            positions.check(report, earlier)?;
            positions.last_report()
        };
        let is_recent = |at| self.heartbeats().is_recent(report.heartbeat, at, self.lag_max);
        if last_report.is_some_and(is_recent) { Ok(()) } else { Err(NO_HEARTBEAT) }
    }

    /// Returns the positions that the primary reported.
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.primary_positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the rows that this instance wrote on the primary.
    fn heartbeats(&self) -> MutexGuard<'_, Heartbeats> {
        self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn state(&self) -> ReplicaState {
        let reason = self.excluded_because.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let excluded_because = (!self.is_used()).then_some(reason);
        ReplicaState { address: self.pool.address().to_owned(), excluded_because }
    }

    /// Keeps the reason of an exclusion.
    fn note(&self, reason: &str) {
        reason.clone_into(&mut self.excluded_because.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn include(&self) {
        self.is_reported.store(true, Ordering::Relaxed);
        if !self.is_used.send_replace(true) {
            tracing::info!("Replica {} serves look-ups", self.pool.address());
        }
    }

    /// Excludes the replica. Logs the reason if the replica was in use, or if the log says nothing about it
    /// yet.
    fn exclude(&self, reason: &str) {
        self.note(reason);
        let is_first = !self.is_reported.swap(true, Ordering::Relaxed);
        if self.is_used.send_replace(false) || is_first {
            tracing::warn!("Replica {} excluded from look-ups: {reason}", self.pool.address());
        }
    }

    /// Excludes the replica. Only the loss of one that was in use is logged.
    fn exclude_quietly(&self, reason: &str) {
        self.note(reason);
        if self.is_used() {
            self.exclude("it does not show the data of the primary");
        }
    }
}

/// The replica is excluded, so it has not answered the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excluded;
