//! Completes two kinds of errors that no operation has created: a request message that could not be read, and
//! INTERNAL, which gets the request id so that an operator can find the cause in the log.

use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{request_id::RequestId, request_rule::RequestRule, rule::Violation, status};

/// The field of a violation by the whole message.
const BODY: &str = "body";

/// Adds the request id to an INTERNAL response, whose message becomes "internal error". One without a reason
/// was created by a library or the fast path (`grpc/unary.rs`), because it could not read the request
/// message: it becomes `INVALID_ARGUMENT`. Other responses are not changed. `is_admitted` says whether a line
/// about such a message is to be logged: any client can send one.
pub(super) fn complete(
    response: Response<Body>,
    id: RequestId,
    is_admitted: impl FnOnce() -> bool,
) -> Response<Body> {
    // Only errors have the status in the headers. A response with a message has it in the trailers.
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Internal => {
            let mut details = status.get_error_details();
            if details.error_info().is_some() {
                // The empty text is `serving_data`, which is not used.
                return with_details(details.set_request_info(id.to_string(), "").clone());
            }
            if is_admitted() {
                tracing::info!(request_id = %id, error = status.message(), "The message of a request cannot be decoded");
            }
            status::invalid_field(Violation::new(BODY, &RequestRule::Message)).into_http()
        }
        _ => response,
    }
}

fn with_details(details: ErrorDetails) -> Response<Body> {
    Status::with_error_details(Code::Internal, "internal error", details).into_http()
}
