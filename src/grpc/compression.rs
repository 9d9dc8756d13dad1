//! Compression of messages, which is not supported. A compressed request of 64 KiB can expand to 64 MiB, and
//! the messages of this API are short.

use http::{HeaderName, Request, Response};
use tonic::{Status, body::Body, metadata::MetadataValue};

/// The header that names the compression of the messages of a request.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The header that lists the compressions that the server accepts.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The only supported value of both headers: no compression.
const IDENTITY: &str = "identity";

/// Returns the response to a request whose messages are compressed, and `None` for any other request. The
/// response names the supported compression, so that a client can repeat the call without compression
/// (gRPC, doc/compression.md).
pub(super) fn reject(request: &Request<Body>) -> Option<Response<Body>> {
    // A header may have several values.
    if request.headers().get_all(ENCODING).iter().all(|encoding| encoding == IDENTITY) {
        return None;
    }
    let message = format!("a request must not be compressed: the only supported {ENCODING} is {IDENTITY}");
    let mut status = Status::unimplemented(message);
    status.metadata_mut().insert(ACCEPT_ENCODING, MetadataValue::from_static(IDENTITY));
    Some(status.into_http())
}
