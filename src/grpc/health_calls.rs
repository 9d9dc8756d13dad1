//! The calls of the health service. `tonic_health` answers them, but ends a `Watch` of an unknown service
//! with an error, where the protocol wants a stream that stays open
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};
use tonic_health::{
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_check_response::ServingStatus,
        health_server::{Health, HealthServer},
    },
    server::{HealthReporter, HealthService},
};

/// The health service.
pub struct HealthCalls {
    known: HealthService,
    /// Closed when the `Watch` streams end.
    open: watch::Receiver<bool>,
}

/// Creates the health service with the status of `reporter`. The `Watch` streams of unknown services end when
/// `open` is closed.
#[must_use]
pub fn health_service(reporter: HealthReporter, open: watch::Receiver<bool>) -> HealthServer<HealthCalls> {
    HealthServer::new(HealthCalls { known: HealthService::from_health_reporter(reporter), open })
}

#[tonic::async_trait]
impl Health for HealthCalls {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.known.check(request).await
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        match self.known.watch(request).await {
            Ok(response) => Ok(response.map(StreamExt::boxed)),
            Err(status) if status.code() == Code::NotFound => {
                Ok(Response::new(unknown(self.open.clone()).boxed()))
            }
            Err(status) => Err(status),
        }
    }
}

/// Returns the stream of a service that is unknown. No service becomes known after the start.
fn unknown(
    mut open: watch::Receiver<bool>,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + Send {
    let response = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
    let closed = async move { while open.changed().await.is_ok() {} };
    stream::iter([Ok(response)]).chain(stream::pending().take_until(closed))
}
