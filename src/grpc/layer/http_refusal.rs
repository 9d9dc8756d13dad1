//! Refuses requests that are no calls, with an HTTP status and a text that says what the port is, and calls
//! of pages in browsers. Calls of the other protocols have been translated to gRPC before (`grpc/protocols`),
//! except for those that are refused here.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

/// The text for a request that is no call.
const ABOUT: &str = "This port serves the API of kairos-identity. Call a method with POST \
    /kairos.identity.v1.SERVICE/METHOD and one of these content types: application/json or application/proto \
    (Connect), application/grpc (gRPC, over HTTP/2 only), application/grpc-web+proto (gRPC-Web).\n";

/// The text for a page in a browser.
const NO_BROWSERS: &str =
    "This port answers no browser: a page calls its own backend, which calls this service.\n";

/// Marks a request as that of a page in a browser. `grpc/protocols` inserts it into calls with the header
/// `origin`, which browsers add and other clients do not. Browsers are no callers, and a page whose name
/// leads to this port (DNS rebinding) could read the answers of a service without a callers file.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct OfBrowser;

/// Returns the response to a request that is not gRPC: 404 for a path that is no method, 405 for any HTTP
/// method but POST, 415 for any other content type. Returns 403 for the call of a page in a browser, and
/// `None` for any other gRPC request.
pub(super) fn refuse(request: &Request<Body>) -> Option<Response<Body>> {
    if request.extensions().get::<OfBrowser>().is_some() {
        return Some(refusal(StatusCode::FORBIDDEN, NO_BROWSERS));
    }
    let is_post = request.method() == Method::POST;
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if is_post && content_type.is_some_and(is_grpc) {
        return None;
    }
    let status = if !is_method_path(request.uri().path()) {
        StatusCode::NOT_FOUND
    } else if is_post {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        StatusCode::METHOD_NOT_ALLOWED
    };
    // The answer to HEAD has no body.
    Some(refusal(status, if request.method() == Method::HEAD { "" } else { ABOUT }))
}

/// True if the path has the form `/package.Service/Method`.
pub(in super::super) fn is_method_path(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    parts
        .is_some_and(|(service, method)| service.contains('.') && !method.is_empty() && !method.contains('/'))
}

/// True for `application/grpc` and `application/grpc+proto`, with or without parameters.
fn is_grpc(content_type: &HeaderValue) -> bool {
    if content_type == "application/grpc" {
        return true;
    }
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc") || essence.eq_ignore_ascii_case("application/grpc+proto")
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
