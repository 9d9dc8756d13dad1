//! Adds the request id to INTERNAL responses, so that an operator can find the cause in the log.

use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{request_id::RequestId, status};
use crate::proto::ErrorReason;

/// Marks an INTERNAL response that had no reason. A library or the fast path (`grpc/unary.rs`) has created
/// it, because it could not read the request message.
#[derive(Clone, Copy)]
pub(super) struct WithoutReason;

/// Adds the request id to an INTERNAL response, and the reason if it has none. The message becomes "internal
/// error". Other responses are not changed. `is_admitted` says whether a line about a request that a library
/// could not read is to be logged: any client can send such a request.
pub(super) fn with_request_id(
    response: Response<Body>,
    id: RequestId,
    is_admitted: impl FnOnce() -> bool,
) -> Response<Body> {
    // Only errors have the status in the headers. A response with a message has it in the trailers.
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Internal => {
            let mut details = status.get_error_details();
            let lacks_reason = details.error_info().is_none();
            if lacks_reason {
                if is_admitted() {
                    tracing::warn!(request_id = %id, error = status.message(), "Call failed in a library");
                }
                details = status::details(ErrorReason::Internal);
            }
            // The empty text is `serving_data`, which is not used.
            let mut response = with_details(details.set_request_info(id.to_string(), "").clone());
            if lacks_reason {
                response.extensions_mut().insert(WithoutReason);
            }
            response
        }
        _ => response,
    }
}

fn with_details(details: ErrorDetails) -> Response<Body> {
    Status::with_error_details(Code::Internal, "internal error", details).into_http()
}
