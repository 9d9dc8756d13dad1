//! A name for each call, drawn here and never taken from the caller, who finds it in the `kairos-request-id` of an error.

use std::fmt;

use http::{HeaderValue, Response};
use tonic::body::Body;
use uuid::{Builder, Uuid};

use crate::entropy::Entropy;

/// The header of an answer that is an error. A success does not need it, and look-ups are faster without.
pub(super) const HEADER: &str = "kairos-request-id";

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of one call: a UUID v4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(Uuid);

/// The id of the call that this task answers, for the log line of what broke in it.
pub(crate) fn current() -> Option<RequestId> {
    CURRENT.try_with(|id| *id).ok()
}

impl RequestId {
    pub(crate) const fn as_uuid(self) -> Uuid {
        self.0
    }

    pub(super) fn draw(entropy: &Entropy) -> Self {
        Self(Builder::from_random_bytes(entropy.identifier()).into_uuid())
    }

    /// Runs the handler so that [`current`] knows the id.
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
