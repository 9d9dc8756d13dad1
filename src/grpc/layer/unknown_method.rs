//! The answer to a call of a method that does not exist.

use http::Response;
use tonic::{Code, Status, body::Body};

const TEXT: &str = "there is no such method: the path is /kairos.identity.v1.SERVICE/METHOD, with the names of the \
    .proto files, in the same case";

/// Adds a message to the response for an unknown method, for which the gRPC library has none. A refusal stays
/// as it is.
pub(super) fn with_message(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
            Status::unimplemented(TEXT).into_http()
        }
        _ => response,
    }
}
