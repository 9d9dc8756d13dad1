//! The id of each call. The server generates it and never takes it from the caller. An error response
//! contains it in the header `kairos-request-id`.

use std::fmt;

use http::{HeaderValue, Response};
use tonic::body::Body;
use uuid::{Builder, Uuid};

use crate::entropy::Entropy;

/// The header with the request id in error responses. Successful responses do not have it, which makes
/// look-ups faster.
pub(super) const HEADER: &str = "kairos-request-id";

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of one call: a UUID v4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId(Uuid);

/// Returns the id of the call that the current task handles, for log lines and audit events.
pub(super) fn current_request_id() -> Option<RequestId> {
    CURRENT.try_with(|id| *id).ok()
}

impl RequestId {
    pub(super) const fn as_uuid(self) -> Uuid {
        self.0
    }

    /// Generates an id.
    pub(super) fn generate(entropy: &Entropy) -> Self {
        Self(Builder::from_random_bytes(entropy.identifier()).into_uuid())
    }

    /// Runs the handler with this id as the [current](current_request_id) one.
    pub(super) async fn scope<R>(self, work: impl Future<Output = R>) -> R {
        CURRENT.scope(self, work).await
    }

    pub(super) fn write_to(self, response: &mut Response<Body>) {
        let mut buffer = Uuid::encode_buffer();
        let text = self.0.hyphenated().encode_lower(&mut buffer);
        let value = HeaderValue::from_str(text).expect("a UUID is hexadecimal digits and hyphens");
        response.headers_mut().insert(HEADER, value);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
