//! Replicas of PostgreSQL, which serve look-ups, and the watch over which of them may be asked.
//!
//! A replica may be asked while what it has replayed is no older than the longest lag. How old it is, is read off the
//! positions in the write-ahead log that the primary told lately: its own clock says nothing, since a primary that has
//! nothing to write looks like one that cannot be heard. While the primary is silent, its last word counts.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::postgres::PostgresPool;
use crate::store::StoreError;

/// How long a server may take to tell its position. Together with the interval it bounds how long a replica that cannot be
/// used is asked: less than 2 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often positions are asked for at most and at least; a quarter of the longest lag lies between.
const PROBE_INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The replicas of a primary.
pub(crate) struct Replicas {
    all: Vec<Replica>,
    turn: AtomicUsize,
    lag_max: Duration,
    primary: Primary,
}

/// One of them.
pub(crate) struct Replica {
    pool: PostgresPool,
    is_used: watch::Sender<bool>,
}

impl Replicas {
    /// Of these pools; none is used before [`Replicas::watch`] has found it current.
    pub(crate) fn new(pools: Vec<PostgresPool>, lag_max: Duration) -> Self {
        let all =
            pools.into_iter().map(|pool| Replica { pool, is_used: watch::Sender::new(false) }).collect();
        Self { all, turn: AtomicUsize::new(0), lag_max, primary: Primary::default() }
    }

    /// One that may be asked, in turn.
    pub(crate) fn pick(&self) -> Option<&Replica> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        let (before, from) = self.all.split_at_checked(first)?;
        from.iter().chain(before).find(|replica| replica.is_used())
    }

    /// Whether any may be asked.
    pub(crate) fn any(&self) -> bool {
        self.all.iter().any(Replica::is_used)
    }

    /// Keeps watch until it is dropped.
    pub(crate) async fn watch(&self, primary: &PostgresPool) {
        loop {
            let replicas = future::join_all(self.all.iter().map(|replica| self.watch_one(replica)));
            let watch = future::join(self.watch_primary(primary), replicas);
            // Without a watch, a replica that is used would be used for ever.
            if AssertUnwindSafe(watch).catch_unwind().await.is_err() {
                self.all.iter().for_each(|replica| replica.leave_out("the watch over it panicked"));
            }
        }
    }

    async fn watch_primary(&self, primary: &PostgresPool) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(primary));
        loop {
            let at = ticks.tick().await;
            // A primary that is down is told by the health watch.
            if let Ok(told) = probe.ask().await
                && let Some(position) = told.position
            {
                self.primary.lock().saw(position, told.system, at, self.lag_max);
            }
        }
    }

    async fn watch_one(&self, replica: &Replica) {
        let (mut ticks, mut probe) = (self.ticks(), Probe::new(&replica.pool));
        let mut earlier = None;
        loop {
            ticks.tick().await;
            match probe.ask().await {
                Ok(told) => match self.primary.lock().judge(&told, &mut earlier) {
                    Ok(()) => replica.take_in(),
                    Err(reason) => replica.leave_out(reason),
                },
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
                self.leave_out(&unanswered.into_error().chain());
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

/// What the primary has told.
#[derive(Default)]
struct Primary(Mutex<Positions>);

impl Primary {
    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the primary was in its log, and when it said so: the first that lies within the longest lag, and all later ones.
#[derive(Default)]
struct Positions {
    told: VecDeque<(Instant, i64)>,
    times_told: u64,
    system: i64,
}

/// Where a replica was in its log, and how often the primary had told its position by then.
#[derive(Debug, Clone, Copy)]
struct Earlier {
    replayed: i64,
    times_told: u64,
}

impl Positions {
    fn saw(&mut self, position: i64, system: i64, at: Instant, lag_max: Duration) {
        self.told.push_back((at, position));
        while self.told.front().is_some_and(|(first, _)| at.duration_since(*first) > lag_max) {
            self.told.pop_front();
        }
        self.times_told += 1;
        self.system = system;
    }

    /// Why a server may not be asked. `earlier` is what is remembered from one time to the next.
    fn judge(&self, told: &Told, earlier: &mut Option<Earlier>) -> Result<(), &'static str> {
        let (Some((_, oldest)), Some((_, newest))) = (self.told.front(), self.told.back()) else {
            return Err("the primary has not been heard");
        };
        let Some(replayed) = told.position else { return Err("it has replayed nothing") };
        if !told.is_replica {
            return Err("it is not a replica, or was promoted");
        }
        if told.system != self.system {
            return Err("it is a replica of another cluster");
        }
        if !told.may_read {
            return Err("the role may not read core_user there");
        }
        // What the primary told second after a replica did, it was asked for after it: it must be further.
        if let Some(before) = *earlier
            && self.times_told >= before.times_told + 2
        {
            *earlier = None;
            if *newest < before.replayed {
                return Err("it has what the primary does not have");
            }
        }
        if earlier.is_none() {
            *earlier = Some(Earlier { replayed, times_told: self.times_told });
        }
        if replayed < *oldest { Err("it lags behind the primary") } else { Ok(()) }
    }
}

/// What a server tells of itself.
#[derive(Debug, Clone, Copy, QueryableByName)]
struct Told {
    #[diesel(sql_type = Bool)]
    is_replica: bool,
    /// Up to which byte of the log it has written or, as a replica, replayed.
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    /// The cluster, and all its replicas.
    #[diesel(sql_type = BigInt)]
    system: i64,
    #[diesel(sql_type = Bool)]
    may_read: bool,
}

/// Asks one server what it tells of itself, on a connection of its own: a pool that is used up says nothing about it.
struct Probe<'a> {
    pool: &'a PostgresPool,
    connection: Option<AsyncPgConnection>,
}

impl<'a> Probe<'a> {
    const fn new(pool: &'a PostgresPool) -> Self {
        Self { pool, connection: None }
    }

    /// A connection on which something went wrong is not used again.
    async fn ask(&mut self) -> Result<Told, StoreError> {
        let connection = self.connection.take();
        let ask = async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => self.pool.connect().await?,
            };
            let query = diesel::sql_query(
                "SELECT pg_is_in_recovery() AS is_replica, \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
                 - '0/0')::bigint AS position, \
                 (SELECT system_identifier FROM pg_control_system()) AS system, \
                 has_table_privilege('core_user', 'SELECT') AS may_read",
            );
            let told: Told = query.get_result(&mut connection).await?;
            Ok::<_, StoreError>((told, connection))
        };
        let (told, connection) = timeout(PROBE_TIMEOUT, ask)
            .await
            .map_err(|_| StoreError::unavailable("it does not answer"))??;
        self.connection = Some(connection);
        Ok(told)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's own moments")]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(1);
    const SYSTEM: i64 = 7;

    /// Where the primary was at each second.
    fn primary(positions: &[i64]) -> Positions {
        let (mut seen, began) = (Positions::default(), Instant::now());
        for (second, position) in (0..).zip(positions) {
            seen.saw(*position, SYSTEM, began + Duration::from_secs(second), LAG_MAX);
        }
        seen
    }

    fn told(position: i64) -> Told {
        Told { is_replica: true, position: Some(position), system: SYSTEM, may_read: true }
    }

    fn is_used(primary: &Positions, told: Told) -> bool {
        primary.judge(&told, &mut None).is_ok()
    }

    #[test]
    fn a_replica_is_current_up_to_the_longest_lag() {
        let primary = primary(&[10, 20, 30]);
        assert!(is_used(&primary, told(30)));
        assert!(is_used(&primary, told(20)));
        assert!(!is_used(&primary, told(19)));
    }

    #[test]
    fn nothing_is_current_before_the_primary_was_heard() {
        assert!(!is_used(&primary(&[]), told(i64::MAX)));
    }

    #[test]
    fn what_is_no_replica_of_this_primary_is_not_used() {
        let primary = primary(&[10]);
        assert!(!is_used(&primary, Told { is_replica: false, ..told(10) }));
        assert!(!is_used(&primary, Told { system: SYSTEM + 1, ..told(10) }));
        assert!(!is_used(&primary, Told { may_read: false, ..told(10) }));
        assert!(!is_used(&primary, Told { position: None, ..told(10) }));
    }

    #[test]
    fn a_replica_that_has_what_a_new_primary_does_not_have_is_left_out() {
        let (mut primary, mut earlier) = (primary(&[100]), None);
        let mut later = Instant::now();
        let mut judgements = Vec::new();
        for _ in 0..4 {
            later += 2 * LAG_MAX;
            primary.saw(50, SYSTEM, later, LAG_MAX);
            judgements.push(primary.judge(&told(100), &mut earlier).is_ok());
        }
        assert!(judgements.contains(&false), "{judgements:?}");
        // A replica of the new primary counts, although it is behind the old one.
        assert!(is_used(&primary, told(50)));
    }

    #[test]
    fn a_replica_that_keeps_up_under_load_stays_in_use() {
        let (mut primary, mut earlier) = (primary(&[0]), None);
        let mut at = Instant::now();
        for position in (100..10_000).step_by(100) {
            at += LAG_MAX / 4;
            // The replica is asked a little later than the primary, and so is a little further.
            primary.saw(position, SYSTEM, at, LAG_MAX);
            assert_eq!(primary.judge(&told(position + 90), &mut earlier), Ok(()));
        }
    }
}
