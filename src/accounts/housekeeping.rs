//! Forgetting in time what the rules no longer need.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{SessionOptions, audit, register::ABANDONED};
use crate::{
    clock::Clock,
    domain::{AuditEvent, AuditKind, Origin},
    store::{Kept, Store},
};

/// How long a registration's request id is remembered.
pub const REQUEST_ID_LIFETIME: Duration = Duration::from_hours(24);

/// How long a link that was used says "already verified", after it has expired.
const EXPIRED_TOKENS_KEPT: Duration = Duration::from_hours(7 * 24);

/// Often enough that each round is small, seldom enough that it costs nothing.
const INTERVAL: Duration = Duration::from_mins(10);

/// Between two transactions of one round, so that other writers get their turn.
const PAUSE: Duration = Duration::from_millis(50);

/// How long what the operator decides on is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Users who have not proven their address.
    pub unverified_users: Duration,
    /// Mails, after they were sent or given up.
    pub finished_mails: Duration,
    /// Audit events.
    pub audit_events: Duration,
}

/// Deletes what is no longer needed, from time to time.
pub struct Housekeeping {
    store: Store,
    clock: Clock,
    kept: Kept,
    origin: Origin,
}

impl Housekeeping {
    /// Keeps what the retention says, and sessions as long as they last; `origin` is what the trail has of its deletions of users.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        origin: Origin,
        sessions: SessionOptions,
        Retention { unverified_users, finished_mails, audit_events }: Retention,
    ) -> Self {
        let kept = Kept {
            unverified_users,
            // The last link says since when its user is to be forgotten.
            expired_tokens: unverified_users.max(EXPIRED_TOKENS_KEPT),
            finished_mails,
            request_ids: REQUEST_ID_LIFETIME,
            sessions: sessions.lifetime,
            idle_sessions: sessions.idle,
            audit_events,
        };
        Self { store, clock, kept, origin }
    }

    /// Goes on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            stop.run_until_cancelled(self.purge()).await;
        }
    }

    async fn purge(&self) {
        loop {
            let gone = AuditEvent::new(self.clock.now(), AuditKind::UserDeleted, self.origin.clone());
            match self.store.purge(self.kept, gone.of(ABANDONED)).await {
                Ok((purged, gone)) => {
                    gone.iter().for_each(audit::log);
                    tracing::debug!(rows = purged.rows, "Deleted rows that are no longer needed");
                    if !purged.is_more {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return tracing::warn!(error = %error.chain(), "Old rows could not be deleted"),
            }
        }
    }
}
