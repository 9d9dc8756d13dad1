//! What a request is answered with, and the headers that keep it where it belongs.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::server::Body;

/// Headers of every answer. Nothing is loaded or sent anywhere but from and to here, nobody frames it, nobody is told where somebody comes
/// from, nobody guesses at its type, and no search engine lists it.
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

/// An answer without the headers that all have.
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    kept: Option<Duration>,
    allow: Option<&'static str>,
    retry_after: Option<u64>,
    body: String,
}

impl Reply {
    /// A page, which is kept by nobody.
    pub const fn page(status: StatusCode, body: String) -> Self {
        let content_type = "text/html; charset=utf-8";
        Self { status, content_type, kept: None, allow: None, retry_after: None, body }
    }

    /// Something that anybody may keep for a while.
    pub const fn public(content_type: &'static str, kept: Duration, body: String) -> Self {
        let kept = Some(kept);
        Self { status: StatusCode::OK, content_type, kept, allow: None, retry_after: None, body }
    }

    /// A status and no words.
    pub const fn empty(status: StatusCode) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, content_type, kept: None, allow: None, retry_after: None, body: String::new() }
    }

    /// Another method is meant.
    pub const fn method_not_allowed(allow: &'static str) -> Self {
        let mut reply = Self::empty(StatusCode::METHOD_NOT_ALLOWED);
        reply.allow = Some(allow);
        reply
    }

    /// The same, worth another try in so many seconds.
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The whole answer.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let cache = match self.kept {
            Some(kept) => HeaderValue::try_from(format!("public, max-age={}", kept.as_secs())),
            None => Ok(HeaderValue::from_static("no-store")),
        };
        headers.insert(header::CACHE_CONTROL, cache.expect("a number is a header's value"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
