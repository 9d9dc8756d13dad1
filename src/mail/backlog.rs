//! Reads at an interval how many mails wait, for the metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::Timestamp,
    metrics::{Registry, Unit, register_gauge},
    store::Store,
};

/// Interval at which the outbox is counted: half of a usual interval between two reads of the metrics (30 s).
const INTERVAL: Duration = Duration::from_secs(15);

/// Means that no mail waits, in place of the time of the oldest one.
const NONE: i64 = i64::MAX;

/// The mails that wait to be sent, as of the last count. Clones share it.
#[derive(Clone)]
pub struct Backlog {
    store: Store,
    clock: Clock,
    last: Arc<Last>,
}

/// The result of the last count.
struct Last {
    waiting: AtomicU64,
    /// In microseconds since 1970.
    oldest: AtomicI64,
}

impl Backlog {
    /// Creates the counter, which shows no mail until [`Backlog::run`].
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        let last = Last { waiting: AtomicU64::new(0), oldest: AtomicI64::new(NONE) };
        Self { store, clock, last: Arc::new(last) }
    }

    /// Adds the last count to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let last = Arc::clone(&self.last);
        register_gauge(registry, "mails_waiting", "Number of mails that wait to be sent", None, move || {
            last.waiting.load(Ordering::Relaxed)
        });
        let (last, clock) = (Arc::clone(&self.last), self.clock.clone());
        register_gauge(
            registry,
            "mails_oldest_waiting",
            "Age of the oldest mail that waits to be sent; 0 if none waits",
            Some(Unit::Seconds),
            move || match last.oldest.load(Ordering::Relaxed) {
                NONE => 0.0,
                oldest => clock.now().since(Timestamp::from_unix_micros(oldest)).as_secs_f64(),
            },
        );
    }

    /// Counts the mails at an interval until `stop` is cancelled. While the database does not answer, the
    /// last count stays.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let counted = stop.run_until_cancelled(self.store.mail_backlog()).await;
            match counted {
                None => return,
                Some(Ok(backlog)) => {
                    self.last.waiting.store(backlog.waiting, Ordering::Relaxed);
                    let oldest = backlog.oldest.map_or(NONE, Timestamp::unix_micros);
                    self.last.oldest.store(oldest, Ordering::Relaxed);
                }
                Some(Err(error)) => tracing::debug!(error = %error.chain(), "Counting the mails failed"),
            }
            stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
    }
}
