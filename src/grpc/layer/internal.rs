//! INTERNAL answers name the request, so that whoever meets one can ask an operator about it.

use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use super::{super::status, request_id::RequestId};
use crate::proto::ErrorReason;

/// Adds the reason, where a library left it out, and the request id to an INTERNAL answer; leaves the others.
pub(super) fn with_request_id(response: Response<Body>, id: RequestId) -> Response<Body> {
    // An answer with a body has its status in the trailers, and is no error of ours.
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Internal => {
            let mut details = status.get_error_details();
            if details.error_info().is_none() {
                tracing::warn!(request_id = %id, error = status.message(), "A library refused a call");
                details = status::details(ErrorReason::Internal);
            }
            with_details(details.set_request_info(id.to_string(), "").clone())
        }
        _ => response,
    }
}

fn with_details(details: ErrorDetails) -> Response<Body> {
    Status::with_error_details(Code::Internal, "internal error", details).into_http()
}
