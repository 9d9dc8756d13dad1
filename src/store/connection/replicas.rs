//! Replicas of PostgreSQL, which serve look-ups, and the watch over which of them may be asked.
//!
//! A replica may be asked while what it has replayed is no older than the longest lag. How old it is, is read off the
//! positions in the write-ahead log that the primary told lately: its own clock says nothing, since a primary that has
//! nothing to write looks like one that cannot be heard. While the primary is silent, its last word counts.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::sql_types::{BigInt, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::postgres::{PostgresPool, Unanswered};
use crate::store::StoreError;

/// How long a server may take to tell its position. Together with the interval it bounds how long a replica that cannot be
/// used is asked: less than 2 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often positions are asked for at most and at least; a quarter of the longest lag lies between.
const PROBE_INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The replicas of a primary.
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
    turn: AtomicUsize,
    lag_max: Duration,
    primary: Positions,
}

/// One of them.
pub(crate) struct Replica {
    pool: PostgresPool,
    is_used: watch::Sender<bool>,
}

impl Replicas {
    /// Of these pools; none is used before [`Replicas::watch`] has found it current.
    pub(crate) fn new(pools: Vec<PostgresPool>, lag_max: Duration) -> Self {
        let replicas =
            pools.into_iter().map(|pool| Replica { pool, is_used: watch::Sender::new(false) }).collect();
        Self { replicas, turn: AtomicUsize::new(0), lag_max, primary: Positions::default() }
    }

    /// One that may be asked, in turn.
    pub(crate) fn pick(&self) -> Option<&Replica> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.replicas.len().max(1);
        let (before, from) = self.replicas.split_at_checked(first)?;
        from.iter().chain(before).find(|replica| replica.is_used())
    }

    /// Whether any may be asked.
    pub(crate) fn any(&self) -> bool {
        self.replicas.iter().any(Replica::is_used)
    }

    /// Keeps watch until it is dropped.
    pub(crate) async fn watch(&self, primary: &PostgresPool) {
        let replicas =
            futures_util::future::join_all(self.replicas.iter().map(|replica| self.watch_one(replica)));
        futures_util::future::join(self.watch_primary(primary), replicas).await;
    }

    async fn watch_primary(&self, primary: &PostgresPool) {
        let mut ticks = self.ticks();
        loop {
            let at = ticks.tick().await;
            // A primary that is down is told by the health watch.
            if let Ok(Some(position)) = probe(primary).await {
                self.primary.saw(position, at, self.lag_max);
            }
        }
    }

    async fn watch_one(&self, replica: &Replica) {
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            match probe(&replica.pool).await {
                Ok(Some(replayed)) if self.primary.is_current(replayed) => replica.take_in(),
                Ok(_) => replica.leave_out("it lags behind the primary"),
                Err(error) => replica.leave_out(&error.chain()),
            }
        }
    }

    fn ticks(&self) -> tokio::time::Interval {
        let (shortest, longest) = PROBE_INTERVALS;
        let mut ticks = interval((self.lag_max / 4).clamp(shortest, longest));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

impl Replica {
    /// Runs a query that only reads. Whatever goes wrong, the replica is left out until it is seen well again; if that
    /// happens for another reason meanwhile, its answer is not waited for.
    ///
    /// # Errors
    /// When another server must be asked.
    pub(crate) async fn ask<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, StoreError>,
    ) -> Result<R, LeftOut> {
        let mut is_used = self.is_used.subscribe();
        let left_out = is_used.wait_for(|is_used| !is_used);
        tokio::select! {
            answer = self.pool.ask(query) => answer.map_err(|unanswered| {
                let (Unanswered::Silent(error) | Unanswered::Lost(error) | Unanswered::Refused(error)) = unanswered;
                self.leave_out(&error.chain());
                LeftOut
            }),
            _ = left_out => Err(LeftOut),
        }
    }

    fn is_used(&self) -> bool {
        *self.is_used.borrow()
    }

    fn take_in(&self) {
        if !self.is_used.send_replace(true) {
            tracing::info!("The replica {} serves look-ups", self.pool.address());
        }
    }

    fn leave_out(&self, reason: &str) {
        if self.is_used.send_replace(false) {
            tracing::warn!("The replica {} is left out: {reason}", self.pool.address());
        }
    }
}

/// The replica that was asked may not be any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftOut;

/// Where the primary was in its log, and when it said so: the first that lies within the longest lag, and all later ones.
#[derive(Default)]
struct Positions(Mutex<VecDeque<(Instant, i64)>>);

impl Positions {
    fn saw(&self, position: i64, at: Instant, lag_max: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push_back((at, position));
        while seen.front().is_some_and(|(first, _)| at.duration_since(*first) > lag_max) {
            seen.pop_front();
        }
    }

    /// Whether a server that has replayed up to here has what the primary had at the longest lag ago.
    fn is_current(&self, replayed: i64) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.front().is_some_and(|(_, position)| replayed >= *position)
    }
}

/// Up to which byte of the log the server has written or, as a replica, replayed.
async fn probe(pool: &PostgresPool) -> Result<Option<i64>, StoreError> {
    let query = diesel::dsl::sql::<Nullable<BigInt>>(
        "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
         - '0/0')::bigint",
    );
    let position = pool.ask(async |connection| Ok(query.get_result(connection).await?));
    match timeout(PROBE_TIMEOUT, position).await {
        Ok(answer) => answer.map_err(|unanswered| match unanswered {
            Unanswered::Silent(error) | Unanswered::Lost(error) | Unanswered::Refused(error) => error,
        }),
        Err(_) => Err(StoreError::unavailable("it does not answer")),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's own moments")]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(1);

    #[test]
    fn a_replica_is_current_up_to_the_longest_lag() {
        let positions = Positions::default();
        let began = Instant::now();
        for (second, position) in [(0, 10), (1, 20), (2, 30)] {
            positions.saw(position, began + Duration::from_secs(second), LAG_MAX);
        }
        assert!(positions.is_current(30));
        assert!(positions.is_current(20));
        assert!(!positions.is_current(19));
    }

    #[test]
    fn nothing_is_current_before_the_primary_was_heard() {
        assert!(!Positions::default().is_current(i64::MAX));
    }

    #[test]
    fn a_new_primary_that_is_behind_the_old_one_counts_after_the_longest_lag() {
        let positions = Positions::default();
        let began = Instant::now();
        positions.saw(100, began, LAG_MAX);
        positions.saw(50, began + Duration::from_secs(2), LAG_MAX);
        assert!(positions.is_current(50));
    }
}
