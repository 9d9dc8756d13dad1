//! Periodic deletion of rows that are no longer needed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    SessionOptions,
    clock_watch::ClockWatch,
    register::{ABANDONED, REQUEST_ID_LIFETIME},
};
use crate::{
    clock::Clock,
    database::DatabaseError,
    domain::{AuditEvent, AuditKind, Origin, Timestamp},
    store::{RetentionPeriods, Store},
};

/// Minimum time for which a mailed token is kept after it has expired. Until its deletion, a used
/// verification link is answered with "already verified".
const EXPIRED_TOKENS_KEPT: Duration = Duration::from_hours(7 * 24);

/// Pause between two rounds: short enough that each round is small, long enough that the rounds cost almost
/// nothing.
const INTERVAL: Duration = Duration::from_mins(10);

/// Pause before the first round, so that instances which are restarted often delete too.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// Pause between two checks of the number of audit events. Shorter than [`INTERVAL`], because a flood of
/// calls can write thousands of events in a minute.
const AUDIT_INTERVAL: Duration = Duration::from_mins(1);

/// Pause between two transactions of one round, so that other writers can run.
const PAUSE: Duration = Duration::from_millis(50);

/// Retention times that the operator configures.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Users who have never verified their email: time after the registration and after the last link.
    pub unverified_users: Duration,
    /// Mails: time after they were sent or failed permanently.
    pub finished_mails: Duration,
    /// Audit events: time after they were recorded.
    pub audit_events: Duration,
    /// Maximum number of audit events, whatever their age.
    pub audit_rows_max: u32,
    /// Time for which nothing is deleted by its age after the clock has jumped forward.
    pub pause_after_jump: Duration,
}

/// Deletes rows that are no longer needed, a minute after the start and then every 10 minutes, and audit
/// events beyond `audit.rows-max`, every minute.
pub struct Housekeeping {
    store: Store,
    retention_periods: RetentionPeriods,
    audit_rows_max: u32,
    watch: Mutex<ClockWatch>,
    origin: Origin,
}

impl Housekeeping {
    /// Creates the job. Rows are kept for the retention times, and sessions until they expire. `origin` is
    /// recorded in the audit event of each deleted user.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        origin: Origin,
        sessions: SessionOptions,
        Retention { unverified_users, finished_mails, audit_events, audit_rows_max, pause_after_jump }: Retention,
    ) -> Self {
        let retention_periods = RetentionPeriods {
            unverified_users,
            // The age of the last link decides when its user is deleted, so the link must be kept that long.
            expired_tokens: unverified_users.max(EXPIRED_TOKENS_KEPT),
            finished_mails,
            request_ids: REQUEST_ID_LIFETIME,
            sessions: sessions.lifetime,
            idle_sessions: sessions.idle,
            audit_events,
        };
        let watch = Mutex::new(ClockWatch::new(clock, pause_after_jump));
        Self { store, retention_periods, audit_rows_max, watch, origin }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let purges = async {
            self.compare_clock_with_store().await;
            let mut pause = FIRST_PAUSE;
            while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                stop.run_until_cancelled(self.purge()).await;
                pause = INTERVAL;
            }
        };
        let audit_purges = async {
            while stop.run_until_cancelled(tokio::time::sleep(AUDIT_INTERVAL)).await.is_some() {
                stop.run_until_cancelled(self.purge_audit()).await;
            }
        };
        tokio::join!(purges, audit_purges);
    }

    /// Pauses the deletion if the stored times show that the clock may have jumped before this process
    /// watched it.
    pub async fn compare_clock_with_store(&self) {
        let (begin, end) = self.watch().checked_period();
        match self.store.audit_times_around(begin, end).await {
            Ok((before, after)) => self.watch().compare_with_stored_times(before, after),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Stored times could not be compared with the clock");
            }
        }
    }

    /// Returns the time against which the age of rows is judged, or `None` while nothing may be deleted by
    /// its age.
    fn deletion_time(&self) -> Option<Timestamp> {
        self.watch().deletion_time()
    }

    fn watch(&self) -> MutexGuard<'_, ClockWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes audit events if there are too many, and logs their number.
    async fn purge_audit(&self) {
        let mut deleted = 0;
        let result = self.delete_excess_audit_events(&mut deleted).await;
        if deleted > 0 {
            let rows_max = self.audit_rows_max;
            tracing::warn!(deleted, "More than audit.rows-max ({rows_max}) audit events; deleted {deleted}");
        }
        if let Err(error) = result {
            tracing::warn!(error = %error.chain(), "Deletion of audit events failed");
        }
    }

    /// Deletes the audit events beyond the maximum number, the least valuable first, in several transactions.
    /// Adds the number of deleted events to `deleted`, also if a later transaction fails.
    async fn delete_excess_audit_events(&self, deleted: &mut i64) -> Result<(), DatabaseError> {
        let excess = self.store.excess_audit_events(i64::from(self.audit_rows_max)).await?;
        while *deleted < excess {
            let left = excess - *deleted;
            let now = self.store.delete_least_valuable_audit_events(left).await?;
            if now == 0 {
                break;
            }
            *deleted += i64::try_from(now).unwrap_or(left);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Deletes rows whose retention period is over, one transaction after the other. Deletes nothing in a
    /// pause after a jump of the clock.
    pub async fn purge(&self) {
        while let Some(now) = self.deletion_time() {
            let deletion = AuditEvent::new(now, AuditKind::UserDeleted, self.origin.clone());
            match self.store.purge(self.retention_periods, deletion.with_resource(ABANDONED)).await {
                Ok(purged) => {
                    tracing::debug!(rows = purged.rows, "Expired rows deleted");
                    if !purged.has_more {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    return tracing::warn!(error = %error.chain(), "Deletion of expired rows failed");
                }
            }
        }
    }
}
