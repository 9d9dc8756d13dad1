//! Periodic deletion of rows that are no longer needed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    ClockWatch, SessionOptions,
    register::{ABANDONED, REQUEST_ID_LIFETIME},
};
use crate::{
    database::DatabaseError,
    domain::{AuditEvent, AuditKind, Origin},
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

/// Pause between two readings of the clock, so that a jump is logged soon. Between two rounds, a registration
/// may ask for them too.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

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
}

/// Deletes rows that are no longer needed, a minute after the start and then every 10 minutes, and audit
/// events beyond `audit.rows-max`, every minute.
pub struct Housekeeping {
    store: Store,
    retention_periods: RetentionPeriods,
    audit_rows_max: u32,
    clock_watch: ClockWatch,
    origin: Origin,
}

impl Housekeeping {
    /// Creates the job. Rows are kept for the retention times, and sessions until they expire. Nothing is
    /// deleted by its age in a pause of `clock_watch`. `origin` is recorded in the audit event of each
    /// deleted user.
    #[must_use]
    pub fn new(
        store: Store,
        clock_watch: ClockWatch,
        origin: Origin,
        sessions: SessionOptions,
        Retention { unverified_users, finished_mails, audit_events, audit_rows_max }: Retention,
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
        Self { store, retention_periods, audit_rows_max, clock_watch, origin }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let purges = async {
            // Before anything is deleted, so that a pause is said at once.
            if let Err(error) = self.clock_watch.compare_with_store(&self.store).await {
                tracing::warn!(error = %error.chain(), "Stored times could not be compared with the clock");
            }
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
        let clock_checks = async {
            while stop.run_until_cancelled(tokio::time::sleep(CLOCK_INTERVAL)).await.is_some() {
                // An error is one of the purges too, which log it.
                let _ = stop.run_until_cancelled(self.clock_watch.deletion_time(&self.store)).await;
            }
        };
        tokio::join!(purges, audit_purges, clock_checks);
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
            let deleted_now = self.store.delete_least_valuable_audit_events(left).await?;
            if deleted_now == 0 {
                break;
            }
            *deleted += i64::try_from(deleted_now).unwrap_or(left);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Deletes rows whose retention period is over, one transaction after the other. Deletes nothing in a
    /// pause after a jump of the clock.
    pub async fn purge(&self) {
        if let Err(error) = self.delete_expired_rows().await {
            tracing::warn!(error = %error.chain(), "Deletion of expired rows failed");
        }
    }

    /// As [`Housekeeping::purge`], which logs the error.
    async fn delete_expired_rows(&self) -> Result<(), DatabaseError> {
        while let Some(now) = self.clock_watch.deletion_time(&self.store).await? {
            let deletion = AuditEvent::new(now, AuditKind::UserDeleted, self.origin.clone());
            let purged = self.store.purge(self.retention_periods, deletion.with_resource(ABANDONED)).await?;
            tracing::debug!(rows = purged.rows, "Expired rows deleted");
            if !purged.has_more {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}
