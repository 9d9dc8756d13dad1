//! The port that serves the metrics: `GET /metrics` in the text format of `OpenMetrics` 1.0, which
//! Prometheus, the OpenTelemetry Collector and others read.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use crate::{
    metrics::{Registry, text},
    server::{Body, HttpHandler, Peer},
};

/// The path of the metrics.
const METRICS: &str = "/metrics";

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#text-format>
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Serves the values of a registry.
pub struct MetricsPage(Registry);

impl MetricsPage {
    /// Creates the page of these values.
    #[must_use]
    pub const fn new(registry: Registry) -> Self {
        Self(registry)
    }
}

impl HttpHandler for MetricsPage {
    async fn answer(&self, request: Request<Body>, _: &Peer) -> Response<Body> {
        let is_get_or_head = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            METRICS if is_get_or_head => {
                let mut values = String::new();
                if let Err(error) = text::encode(&mut values, &self.0) {
                    tracing::error!(%error, "The metrics cannot be written as text");
                    return short(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be shown.\n");
                }
                let mut response = Response::new(Body::new(values));
                response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
                response
            }
            METRICS => {
                let mut response = short(StatusCode::METHOD_NOT_ALLOWED, "");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
            _ => short(StatusCode::NOT_FOUND, "This port serves the metrics at /metrics.\n"),
        }
    }
}

/// Returns a response with a short text.
fn short(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
