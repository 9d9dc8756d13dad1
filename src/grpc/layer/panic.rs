//! A panic in a handler is that call's INTERNAL and nobody else's; the process's panic hook has logged where it was.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::Response;
use tonic::{Code, body::Body};

use super::super::status::refusal;
use crate::proto::ErrorReason;

/// The handler's answer, or INTERNAL when it panicked.
pub(super) async fn caught(handler: impl Future<Output = Response<Body>>) -> Response<Body> {
    // Nothing that the handler held is used again: it is dropped with the future.
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|_| {
        let request_id = super::current_request_id().map(tracing::field::display);
        tracing::error!(request_id, "A call panicked");
        refusal(Code::Internal, ErrorReason::Internal, "internal error").into_http()
    })
}
