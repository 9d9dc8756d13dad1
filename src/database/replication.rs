//! How far a PostgreSQL replica is behind its primary, measured by positions in the write-ahead log (WAL).
//!
//! A replica is current if it has replayed at least the oldest position that the primary reported within
//! `lag_max` of its last report. The replay time that a replica itself reports is no measure: it looks the
//! same when the primary writes nothing and when the replica has lost the primary. While the primary does not
//! answer, the positions that it reported last remain in force.

use std::{collections::VecDeque, time::Duration};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::{Instant, timeout};

use super::{
    columns::{SqlUuid, UuidColumn},
    postgres::PostgresPool,
};
use crate::database::DatabaseError;

/// Reasons against the use of a server. They may no longer apply a moment later.
pub(super) const NO_POSITION: &str = "no position of the primary is known yet";
const LAGS: &str = "it lags too far behind the primary";

/// The reason against a server that does not show the row of this instance.
pub(super) const NO_HEARTBEAT: &str =
    "it does not show what this instance wrote on the primary: it is another database, or lags";

/// True if this reason may no longer apply a moment later, so that it says little at the start.
pub(super) fn is_temporary(reason: &str) -> bool {
    [NO_POSITION, LAGS, NO_HEARTBEAT].contains(&reason)
}

/// Time limit on one probe of a server. Together with the interval it bounds how long a replica that cannot
/// be used still gets queries: less than 2 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Positions of the primary in its WAL and when it reported them: those that were at most `lag_max` old at
/// its last report.
#[derive(Default)]
pub(super) struct Positions {
    reports: VecDeque<(Instant, i64)>,
    /// Number of all reports with a position, those dropped included.
    report_count: u64,
    /// Identifier of the primary's cluster.
    cluster_id: i64,
}

/// The position of a replica, and how many reports the primary had made by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct EarlierReport {
    replayed: i64,
    report_count: u64,
}

impl Positions {
    /// Returns when the primary made its last report.
    pub(super) fn last_report(&self) -> Option<Instant> {
        self.reports.back().map(|(at, _)| *at)
    }

    /// Adds a report of the primary and drops the positions older than `lag_max`. Ignores a report without a
    /// position.
    pub(super) fn record(&mut self, report: &ServerStatus, at: Instant, lag_max: Duration) {
        let Some(position) = report.position else { return };
        self.reports.push_back((at, position));
        while self.reports.front().is_some_and(|(first, _)| at.duration_since(*first) > lag_max) {
            self.reports.pop_front();
        }
        self.report_count += 1;
        self.cluster_id = report.cluster_id;
    }

    /// Checks that look-ups may query a server. The error says why they may not. `earlier` is kept between
    /// the calls for one server.
    pub(super) fn check(
        &self,
        report: &ServerStatus,
        earlier: &mut Option<EarlierReport>,
    ) -> Result<(), &'static str> {
        let (Some((_, oldest)), Some((_, newest))) = (self.reports.front(), self.reports.back()) else {
            return Err(NO_POSITION);
        };
        let Some(replayed) = report.position else { return Err("it has not replayed any WAL") };
        if !report.is_replica {
            return Err("it is not a replica or has been promoted");
        }
        if report.cluster_id != self.cluster_id {
            return Err("it is a replica of another cluster");
        }
        if !report.may_read {
            return Err("the database role may not read core_user there");
        }
        // The first report of the primary after that of the replica may have been requested before it. The
        // second one is newer in any case, so its position must be at least as far.
        if let Some(before) = *earlier
            && self.report_count >= before.report_count + 2
        {
            if *newest < before.replayed {
                // `earlier` stays, so the replica stays out of use until the primary has written as much.
                return Err("it has replayed WAL that the primary does not have");
            }
            *earlier = None;
        }
        if earlier.is_none() {
            *earlier = Some(EarlierReport { replayed, report_count: self.report_count });
        }
        if replayed < *oldest { Err(LAGS) } else { Ok(()) }
    }
}

/// The state of a server at one probe.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub(super) struct ServerStatus {
    #[diesel(sql_type = Bool)]
    is_replica: bool,
    /// Position in the WAL: the byte up to which a primary has written or a replica has replayed.
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    /// Identifier of the cluster; a primary and its replicas share it.
    #[diesel(sql_type = BigInt)]
    cluster_id: i64,
    #[diesel(sql_type = Bool)]
    may_read: bool,
    /// The number in the row of this instance, if the database has one.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(super) heartbeat: Option<i64>,
}

/// Queries the state of one server on a connection of its own: an exhausted pool does not mean that the
/// server is unavailable.
pub(super) struct Probe<'a> {
    pool: &'a PostgresPool,
    connection: Option<AsyncPgConnection>,
}

impl<'a> Probe<'a> {
    pub(super) const fn new(pool: &'a PostgresPool) -> Self {
        Self { pool, connection: None }
    }

    /// Runs one probe; `instance` identifies the row of this instance. A connection on which it failed is not
    /// used again.
    pub(super) async fn query(
        &mut self,
        instance: Option<UuidColumn>,
    ) -> Result<ServerStatus, DatabaseError> {
        let connection = self.connection.take();
        let exchange = async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => self.pool.connect().await?,
            };
            let query = diesel::sql_query(
                "SELECT pg_is_in_recovery() AS is_replica, \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
                 - '0/0')::bigint AS position, \
                 (SELECT system_identifier FROM pg_control_system()) AS cluster_id, \
                 has_table_privilege('core_user', 'SELECT') AS may_read, \
                 (SELECT number FROM kairos_heartbeat WHERE instance = $1) AS heartbeat",
            )
            .bind::<Nullable<SqlUuid>, _>(instance);
            let report: ServerStatus = query.get_result(&mut connection).await?;
            Ok::<_, DatabaseError>((report, connection))
        };
        let (report, connection) = timeout(PROBE_TIMEOUT, exchange)
            .await
            .map_err(|_| DatabaseError::unavailable("it did not answer in time"))??;
        self.connection = Some(connection);
        Ok(report)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's own moments")]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(1);
    const CLUSTER_ID: i64 = 7;

    /// Builds the reports of a primary, one position per second.
    fn primary(positions: &[i64]) -> Positions {
        let (mut seen, began) = (Positions::default(), Instant::now());
        for (second, position) in (0..).zip(positions) {
            seen.record(&report(*position), began + Duration::from_secs(second), LAG_MAX);
        }
        seen
    }

    fn report(position: i64) -> ServerStatus {
        ServerStatus {
            is_replica: true,
            position: Some(position),
            cluster_id: CLUSTER_ID,
            may_read: true,
            heartbeat: None,
        }
    }

    fn is_used(primary: &Positions, report: ServerStatus) -> bool {
        primary.check(&report, &mut None).is_ok()
    }

    #[test]
    fn a_replica_is_usable_up_to_the_lag_limit() {
        let primary = primary(&[10, 20, 30]);
        assert!(is_used(&primary, report(30)));
        assert!(is_used(&primary, report(20)));
        assert!(!is_used(&primary, report(19)));
    }

    #[test]
    fn no_replica_is_usable_before_the_primary_has_reported() {
        assert!(!is_used(&primary(&[]), report(i64::MAX)));
    }

    #[test]
    fn a_server_that_is_not_a_replica_of_this_primary_is_not_used() {
        let primary = primary(&[10]);
        assert!(!is_used(&primary, ServerStatus { is_replica: false, ..report(10) }));
        assert!(!is_used(&primary, ServerStatus { cluster_id: CLUSTER_ID + 1, ..report(10) }));
        assert!(!is_used(&primary, ServerStatus { may_read: false, ..report(10) }));
        assert!(!is_used(&primary, ServerStatus { position: None, ..report(10) }));
    }

    #[test]
    fn wal_that_a_new_primary_lacks_is_noticed_at_a_later_probe() {
        let (mut primary, mut earlier) = (primary(&[100]), None);
        let mut later = Instant::now();
        let mut results = Vec::new();
        for _ in 0..3 {
            later += 2 * LAG_MAX;
            primary.record(&report(50), later, LAG_MAX);
            results.push(primary.check(&report(100), &mut earlier).is_ok());
        }
        assert_eq!(results, [true, true, false], "noticed after two further reports of the primary");
        // A replica of the new primary is usable, although it is behind the old one.
        assert!(is_used(&primary, report(50)));
    }

    #[test]
    fn a_replica_that_keeps_up_under_load_stays_in_use() {
        let (mut primary, mut earlier) = (primary(&[0]), None);
        let mut at = Instant::now();
        for position in (100..10_000).step_by(100) {
            at += LAG_MAX / 4;
            // The replica is probed a little later than the primary, so its position is a little further.
            primary.record(&report(position), at, LAG_MAX);
            assert_eq!(primary.check(&report(position + 90), &mut earlier), Ok(()));
        }
    }
}
