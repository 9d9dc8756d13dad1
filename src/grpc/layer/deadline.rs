//! Deadlines of calls: the caller's `grpc-timeout` or a default, limited by a maximum. A `connect-timeout-ms`
//! is a `grpc-timeout` when it arrives here.
//!
//! The handler is dropped when the deadline passes. That interrupts no write, because the store's writes run
//! in their own tasks and threads. The deadline covers the reading of the request body, because the handler
//! reads it. For a streaming response it ends when the headers are sent.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response};
use tonic::{Code, Status, body::Body};

use super::super::{
    request_rule::{GRPC_TIMEOUT_DIGITS_MAX, RequestRule},
    rule::Violation,
    status::{error_status, invalid_field},
};
use crate::proto::ErrorReason;

/// The header with the deadline of a call of gRPC.
pub(in super::super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The header with the deadline of a call of Connect, from which the `grpc-timeout` was made.
pub(in super::super) const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");

/// Returns the time limit of the call.
///
/// # Errors
/// `INVALID_FIELDS` for a malformed `grpc-timeout`.
pub(super) fn limit(headers: &HeaderMap, default: Duration, max: Duration) -> Result<Duration, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(default.min(max)) };
    let timeout = value.to_str().ok().and_then(parse).ok_or_else(|| malformed(headers))?;
    Ok(timeout.min(max))
}

/// Returns the status for a malformed deadline, which names the header that the caller has sent.
fn malformed(headers: &HeaderMap) -> Status {
    let (header, rule) = if headers.contains_key(CONNECT_TIMEOUT) {
        (CONNECT_TIMEOUT, RequestRule::ConnectTimeout)
    } else {
        (GRPC_TIMEOUT, RequestRule::GrpcTimeout)
    };
    invalid_field(Violation::new(header.as_str(), &rule))
}

/// Parses `TimeoutValue TimeoutUnit` of the gRPC specification.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > GRPC_TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Returns the handler's response, or `DEADLINE_EXCEEDED` if the limit passes first.
pub(super) async fn within(limit: Duration, handler: impl Future<Output = Response<Body>>) -> Response<Body> {
    tokio::time::timeout(limit, handler).await.unwrap_or_else(|_| {
        let message =
            "the deadline passed before the response was ready; it is unknown whether a change was made";
        error_status(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message).into_http()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_unit_of_the_specification_is_parsed() {
        for (text, duration) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse(text), Some(duration), "{text}");
        }
        for text in
            ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1é", "99999999999999999999S"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
