//! gRPC-Web, in its binary form: gRPC whose trailers are the last frame of the body
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use tonic::body::Body;

use super::frames::{FramedTrailers, frame};

/// The flag of the frame with the trailers.
const TRAILERS: u8 = 0x80;

/// Returns the gRPC request. The body is the same.
pub(super) fn to_grpc(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *request.version_mut() = Version::HTTP_2;
    request
}

/// Returns the response of gRPC-Web. An error without a body has its status in the headers, as in gRPC.
pub(super) fn from_grpc(response: Response<Body>) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let mut response = response.map(|body| Body::new(FramedTrailers { body, frame_of }));
    let content_type = HeaderValue::from_static("application/grpc-web+proto");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Returns the frame with these trailers.
fn frame_of(trailers: &HeaderMap) -> Bytes {
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
        [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat()
    };
    frame(TRAILERS, &trailers.iter().flat_map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_a_frame_of_header_lines() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(frame_of(&trailers), b"\x80\0\0\0\x10grpc-status: 0\r\n"[..]);
    }
}
