//! The response of a streaming call of Connect with protobuf (<https://connectrpc.com/docs/protocol>). It has
//! the messages of gRPC, and a last frame with the status in JSON.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;
use tonic::{Code, Status, body::Body};

use super::{
    connect_error,
    connect_response::REMOVED,
    frames::{FramedTrailers, frame},
    schema::Schema,
};
use crate::server::Refusal;

/// The flag of the last frame.
const END: u8 = 2;

/// Returns the response of Connect. Its HTTP status is 200 for an error too.
pub(super) fn from_grpc(response: Response<Body>, schema: &Schema) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let body = match error_in(&head.headers) {
        Some(status) => {
            head.extensions.insert(Refusal);
            Body::new(Full::new(end(Some(&connect_error::json(&status, Some(schema))))))
        }
        None => Body::new(FramedTrailers { body, frame_of }),
    };
    for name in REMOVED {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/connect+proto"));
    Response::from_parts(head, body)
}

fn error_in(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

/// Returns the frame with these trailers. The details of an error have no readable form (`debug`), because a
/// function pointer has no schema.
fn frame_of(trailers: &HeaderMap) -> Bytes {
    end(error_in(trailers).map(|status| connect_error::json(&status, None)).as_deref())
}

/// Returns the last frame of a stream.
fn end(error: Option<&[u8]>) -> Bytes {
    match error {
        Some(error) => frame(END, &[b"{\"error\":", error, b"}"].concat()),
        None => frame(END, b"{}"),
    }
}
