//! HTTP responses, with their security headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::server::Body;

/// The headers of every response. They allow style sheets, images and form targets only from the same origin,
/// and no framing. They disable the referrer and content sniffing, and exclude the page from search engines.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
];

/// A response, without the headers that every response has.
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    max_age: Option<Duration>,
    allow: Option<&'static str>,
    /// In seconds.
    retry_after: Option<u64>,
    body: String,
}

impl Reply {
    /// Creates an HTML page, which must not be cached.
    pub const fn page(status: StatusCode, body: String) -> Self {
        let content_type = "text/html; charset=utf-8";
        Self { status, content_type, max_age: None, allow: None, retry_after: None, body }
    }

    /// Creates a response with status 200 that any cache may keep for `max_age`.
    pub const fn cacheable(content_type: &'static str, max_age: Duration, body: String) -> Self {
        let max_age = Some(max_age);
        Self { status: StatusCode::OK, content_type, max_age, allow: None, retry_after: None, body }
    }

    /// Creates a response with an empty body.
    pub const fn empty(status: StatusCode) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, content_type, max_age: None, allow: None, retry_after: None, body: String::new() }
    }

    /// Creates a short text, which must not be cached.
    pub fn text(status: StatusCode, body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::empty(status) }
    }

    /// Creates a response with status 405. `allow` lists the allowed methods.
    pub const fn method_not_allowed(allow: &'static str) -> Self {
        let mut reply = Self::empty(StatusCode::METHOD_NOT_ALLOWED);
        reply.allow = Some(allow);
        reply
    }

    /// Adds the header `Retry-After`, in seconds.
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Returns the complete HTTP response.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let cache = match self.max_age {
            Some(max_age) => HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs())),
            None => Ok(HeaderValue::from_static("no-store")),
        };
        headers.insert(header::CACHE_CONTROL, cache.expect("the text is a valid header value"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
