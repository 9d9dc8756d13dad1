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
    /// The result of the last check; `None` before the first one.
    was_available: Option<bool>,
}

impl HealthWatch {
    /// Creates a watch, checks the database once and sets the status.
    pub async fn begin(reporter: HealthReporter, store: Store) -> Self {
        let mut watch = Self { reporter, store, was_available: None };
        watch.check().await;
        watch
    }

    /// Checks the database periodically until `stop`. Then sets `NOT_SERVING`, and ends the `Watch` streams
    /// at `drain`.
    pub async fn run(mut self, stop: CancellationToken, drain: CancellationToken) {
        while stop.run_until_cancelled(self.check()).await.is_some() {
            stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
        self.report(ServingStatus::NotServing).await;
        drain.cancelled().await;
        for service in services() {
            // An open `Watch` stream would delay the shutdown until the drain deadline.
            self.reporter.clone().clear_service_status(service).await;
        }
    }

    /// Checks the database, and reports a change of its state.
    async fn check(&mut self) {
        let is_available = self.is_database_available().await;
        if self.was_available != Some(is_available) {
            self.report_change(is_available).await;
        }
    }

    /// True if the database answers a ping.
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

    /// Logs a change of the state and sets the status.
    async fn report_change(&mut self, is_available: bool) {
        match (self.was_available.replace(is_available), is_available) {
            (_, false) => tracing::error!("Database unavailable; health status is NOT_SERVING"),
            (Some(false), true) => tracing::info!("Database available again; health status is SERVING"),
            (None | Some(true), true) => {}
        }
        self.report(if is_available { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    }

    /// Sets the status of all services.
    async fn report(&self, status: ServingStatus) {
        for service in services() {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;
    use crate::{
        database::{DatabaseOptions, PostgresOptions},
        store::LookupOptions,
    };

    /// A store whose server refuses connections.
    fn unreachable_store() -> Store {
        let timeout = Duration::from_secs(1);
        let options = DatabaseOptions::Postgres(Box::new(PostgresOptions {
            url: "postgres://kairos@127.0.0.1:1/kairos".parse().unwrap(),
            pool_size: 1,
            connect_timeout: timeout,
            acquire_timeout: timeout,
            statement_timeout: timeout,
            idle_timeout: timeout,
            connection_lifetime: timeout,
            is_pooled: false,
        }));
        Store::open(options, LookupOptions { batch_tokens_max: 1, lanes: 1, waiting_max: 1 }).unwrap()
    }

    #[tokio::test]
    async fn a_database_lost_at_the_start_is_reported_once_and_so_is_its_return() {
        let (mut log, lines) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(move || lines.try_clone().unwrap());
        let logging = tracing::subscriber::set_default(subscriber.finish());
        let (reporter, _) = tonic_health::server::health_reporter();

        let mut watch = HealthWatch::begin(reporter, unreachable_store()).await;
        watch.check().await;
        watch.report_change(true).await;

        drop(logging);
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("Database unavailable").count(), 1, "{text}");
        assert_eq!(text.matches("Database available again").count(), 1, "{text}");
    }
}
