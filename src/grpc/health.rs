//! `grpc.health.v1`: SERVING while the database answers.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::service;
use crate::store::{Store, StoreError};

/// Between two looks at the database; callers learn of a loss within this and [`ANSWER_LIMIT`].
const INTERVAL: Duration = Duration::from_secs(1);

/// A database that does not answer within this is lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The services that follow the database: those of the API, and `""` for the whole.
fn services() -> impl Iterator<Item = &'static str> {
    service::NAMES.into_iter().chain([""])
}

/// Keeps the health service true.
pub struct HealthWatch {
    reporter: HealthReporter,
    store: Store,
}

impl HealthWatch {
    /// A watch that has looked at the database once, and said what it found.
    pub async fn begin(reporter: HealthReporter, store: Store) -> Self {
        let watch = Self { reporter, store };
        let answers = watch.database_answers().await;
        watch.tell(None, answers).await;
        watch
    }

    /// Looks at the database until `stop`; then says `NOT_SERVING`, and at `drain` ends the streams of `Watch`.
    pub async fn run(self, stop: CancellationToken, drain: CancellationToken) {
        let mut is_serving = None;
        while let Some(answers) = stop.run_until_cancelled(self.database_answers()).await {
            if is_serving != Some(answers) {
                self.tell(is_serving, answers).await;
                is_serving = Some(answers);
            }
            stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
        self.report(ServingStatus::NotServing).await;
        drain.cancelled().await;
        for service in services() {
            // A `Watch` that goes on would hold the stop until its deadline.
            self.reporter.clone().clear_service_status(service).await;
        }
    }

    async fn database_answers(&self) -> bool {
        match tokio::time::timeout(ANSWER_LIMIT, self.store.ping()).await {
            // A full queue is no loss: the database works through it.
            Ok(Ok(()) | Err(StoreError::Overloaded)) => true,
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "The database does not answer");
                false
            }
            Err(_) => false,
        }
    }

    /// An operator reads of each change once.
    async fn tell(&self, before: Option<bool>, answers: bool) {
        match (before, answers) {
            (_, false) => tracing::error!("The database does not answer: NOT_SERVING"),
            (Some(false), true) => tracing::info!("The database answers again: SERVING"),
            (None | Some(true), true) => {}
        }
        self.report(if answers { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    }

    async fn report(&self, status: ServingStatus) {
        for service in services() {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
