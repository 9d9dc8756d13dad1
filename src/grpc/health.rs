//! The health service (`grpc.health.v1`): SERVING while the database is available.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::service;
use crate::{database::DatabaseError, store::Store};

/// The time between two checks of the database. The status changes at most this plus [`PING_TIMEOUT`] after
/// the database is lost.
const INTERVAL: Duration = Duration::from_secs(1);

/// A database that does not answer a ping within this time is unavailable.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The services whose status follows the database: those of the API, and `""` for the whole server.
fn services() -> impl Iterator<Item = &'static str> {
    service::NAMES.into_iter().chain([""])
}

/// Sets the status of the health service by the state of the database.
pub struct HealthWatch {
    reporter: HealthReporter,
    store: Store,
}

impl HealthWatch {
    /// Creates a watch, checks the database once and sets the status.
    pub async fn begin(reporter: HealthReporter, store: Store) -> Self {
        let watch = Self { reporter, store };
        let is_available = watch.is_database_available().await;
        watch.report_change(None, is_available).await;
        watch
    }

    /// Checks the database periodically until `stop`. Then sets `NOT_SERVING`, and ends the `Watch` streams
    /// at `drain`.
    pub async fn run(self, stop: CancellationToken, drain: CancellationToken) {
        let mut was_available = None;
        while let Some(is_available) = stop.run_until_cancelled(self.is_database_available()).await {
            if was_available != Some(is_available) {
                self.report_change(was_available, is_available).await;
                was_available = Some(is_available);
            }
            stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
        self.report(ServingStatus::NotServing).await;
        drain.cancelled().await;
        for service in services() {
            // An open `Watch` stream would delay the shutdown until the drain deadline.
            self.reporter.clone().clear_service_status(service).await;
        }
    }

    async fn is_database_available(&self) -> bool {
        match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
            // A full queue does not mean that the database is unavailable: it is working through the queue.
            Ok(Ok(()) | Err(DatabaseError::Overloaded)) => true,
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "Database ping failed");
                false
            }
            Err(_) => false,
        }
    }

    /// Logs the change and sets the status. `was_available` is `None` at the first check.
    async fn report_change(&self, was_available: Option<bool>, is_available: bool) {
        match (was_available, is_available) {
            (_, false) => tracing::error!("Database unavailable; health status is NOT_SERVING"),
            (Some(false), true) => tracing::info!("Database available again; health status is SERVING"),
            (None | Some(true), true) => {}
        }
        self.report(if is_available { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    }

    async fn report(&self, status: ServingStatus) {
        for service in services() {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
