//! Only gRPC is answered: anything else gets the HTTP status that the gRPC specification asks for, and no body.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;

/// The refusal of a request that is not gRPC: 405 for another method than POST, 415 for another content type.
pub(super) fn refuse(request: &Request<Body>) -> Option<Response<Body>> {
    if request.method() != Method::POST {
        let mut refusal = empty(StatusCode::METHOD_NOT_ALLOWED);
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Some(refusal);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    (!content_type.is_some_and(is_grpc)).then(|| empty(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// `application/grpc` or `application/grpc+proto`, with or without parameters.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc") || essence.eq_ignore_ascii_case("application/grpc+proto")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
