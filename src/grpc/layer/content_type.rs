//! Rejects requests that are not gRPC, with the HTTP status of the gRPC specification and an empty body.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;

/// Returns the response to a request that is not gRPC: 405 for any method but POST, 415 for any other content
/// type. Returns `None` for a gRPC request.
pub(super) fn reject(request: &Request<Body>) -> Option<Response<Body>> {
    if request.method() != Method::POST {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    (!content_type.is_some_and(is_grpc)).then(|| empty(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// True for `application/grpc` and `application/grpc+proto`, with or without parameters.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc") || essence.eq_ignore_ascii_case("application/grpc+proto")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
