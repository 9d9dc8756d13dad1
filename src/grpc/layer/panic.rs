//! Converts a panic in a handler into INTERNAL for that call only. The panic hook of the process logs where
//! it happened.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::Response;
use tonic::{Code, body::Body};

use super::super::{request_id::current_request_id, status::error_status};
use crate::proto::ErrorReason;

/// Returns the handler's response, or INTERNAL if it panics.
pub(super) async fn catch(handler: impl Future<Output = Response<Body>>) -> Response<Body> {
    // Unwind safe: the state of the handler is dropped with the future and never used again.
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|_| {
        let request_id = current_request_id().map(tracing::field::display);
        tracing::error!(request_id, "Handler panicked");
        internal_error()
    })
}

/// Returns the response to a call whose handler has none.
pub(super) fn internal_error() -> Response<Body> {
    error_status(Code::Internal, ErrorReason::Internal, "internal error").into_http()
}
