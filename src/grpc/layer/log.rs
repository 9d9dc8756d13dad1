//! The log line of each call: caller, method, status code, duration. Successful look-ups are logged at
//! `debug`. Calls without a known caller, a known method or the right to it have one line for each peer and
//! result in a minute; further ones are only counted ([`PeerLog`]).

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, Request, Response};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tracing::Level;

use super::{
    super::{
        request_id::RequestId,
        status::{code_name, reason_name},
    },
    methods::Method,
    metrics::{CallMetrics, EndedCall},
};
use crate::{callers::Caller, clock::Clock, domain::NOBODY, proto::ErrorReason, server::PeerLog};

/// The header with the trace context of a caller (W3C Trace Context).
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Logged in place of a path that is not a known method.
const UNKNOWN: &str = "unknown";

/// Where a call is reported when it has ended.
pub(super) struct CallReports {
    pub(super) peer_log: PeerLog,
    pub(super) metrics: CallMetrics,
}

/// A call in flight. If it is dropped before [`Call::end`], the caller has cancelled it, and it is reported
/// as CANCELLED.
pub(super) struct Call<'a> {
    method: Option<Method>,
    peer: SocketAddr,
    caller: Option<Arc<Caller>>,
    trace_id: Option<String>,
    id: RequestId,
    clock: &'a Clock,
    began: Instant,
    reports: &'a CallReports,
    /// True after the call was reported.
    is_reported: bool,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallResult {
    /// The response is a message or a stream.
    Success,
    /// The response is an HTTP error: the request was not gRPC.
    HttpError,
    /// The response is a gRPC error, with the reason in its details if there is one.
    Error { code: Code, reason: Option<String> },
}

impl<'a> Call<'a> {
    pub(super) fn begin(
        request: &Request<Body>,
        peer: SocketAddr,
        id: RequestId,
        method: Option<Method>,
        clock: &'a Clock,
        reports: &'a CallReports,
    ) -> Self {
        let (trace_id, began) = (trace_id(request.headers()), clock.instant());
        Self { method, peer, caller: None, trace_id, id, clock, began, reports, is_reported: false }
    }

    /// Sets the caller, once it is authenticated.
    pub(super) fn set_caller(&mut self, caller: &Arc<Caller>) {
        self.caller = Some(Arc::clone(caller));
    }

    /// Returns the caller, if it is authenticated.
    pub(super) const fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref()
    }

    /// Reports the call and returns its result. A streaming response is reported when its headers are ready.
    pub(super) fn end(&mut self, response: &Response<Body>) -> CallResult {
        if !response.status().is_success() {
            self.report(format!("HTTP {}", response.status().as_u16()).into(), None);
            return CallResult::HttpError;
        }
        // A success has its status in the trailers. An error has no body, and its status is in the headers.
        let Some(status) = Status::from_header_map(response.headers()) else {
            self.report(code_name(Code::Ok).into(), None);
            return CallResult::Success;
        };
        let reason = status.get_details_error_info().map(|info| info.reason);
        self.report(code_name(status.code()).into(), reason.as_deref());
        CallResult::Error { code: status.code(), reason }
    }

    /// True if the line is to be logged. The [`PeerLog`] counts lines that any client can cause, and admits
    /// only the first of equal ones.
    pub(super) fn is_admitted(&self, code: &str, reason: Option<&str>) -> bool {
        // A caller has no use for calls that it may not make, and could fill the log with them.
        let is_not_allowed = reason == Some(reason_name(ErrorReason::CallerNotAllowed));
        let any_client_can_cause_it = !self.is_of_caller() || self.method.is_none() || is_not_allowed;
        // Lines are equal whatever their method is, because a stranger can call every method.
        let text = || {
            let caller = self.caller.as_ref().map_or(NOBODY, |caller| caller.name());
            format!("{code} {} of {caller}", reason.unwrap_or("without a reason"))
        };
        !any_client_can_cause_it || self.reports.peer_log.admits(self.peer.ip(), text())
    }

    /// True if the call is one of a known caller: not one of health, and not one of a stranger.
    fn is_of_caller(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.name() != NOBODY)
    }

    /// Counts the call and logs it.
    fn report(&mut self, code: Cow<'static, str>, reason: Option<&str>) {
        self.is_reported = true;
        let duration = self.clock.instant().duration_since(self.began);
        self.log(&code, reason, duration);
        self.reports.metrics.record(EndedCall {
            method: self.method,
            code,
            reason,
            caller: self.caller.as_ref(),
            duration,
            // A client that is no caller can choose any trace id, and any method.
            trace_id: self.trace_id.as_deref().filter(|_| self.is_of_caller() && self.method.is_some()),
        });
    }

    fn log(&self, code: &str, reason: Option<&str>, duration: Duration) {
        let method = self.method.map_or(UNKNOWN, |method| method.path);
        if !self.is_admitted(code, reason) {
            return;
        }
        // A macro, because tracing needs the level as a constant. It evaluates the fields only if the level
        // is enabled.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "rpc",
                    $level,
                    reason,
                    rpc.method = method,
                    rpc.code = code,
                    duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
                    peer = %self.peer,
                    caller = self.caller.as_ref().map(|caller| caller.name()),
                    request_id = %self.id,
                    trace_id = self.trace_id,
                    "{method} {code}"
                )
            };
        }
        // A log line for each successful look-up would cost as much as the call.
        if code == code_name(Code::Ok) && self.method.is_some_and(Method::is_look_up) {
            line!(Level::DEBUG);
        } else {
            line!(Level::INFO);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.report(code_name(Code::Cancelled).into(), None);
        }
    }
}

/// Returns the trace id of a valid W3C `traceparent` header: 32 lower-case hexadecimal digits, not all zero.
/// Versions after 00 may have further fields.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parts: Vec<&str> = headers.get(TRACE_PARENT)?.to_str().ok()?.split('-').collect();
    let [version, trace, span, flags, later @ ..] = parts.as_slice() else { return None };
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let has_valid_fields =
        is_hex(version, 2) && *version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let is_valid = has_valid_fields && (later.is_empty() || *version != "00");
    (is_valid && !is_zero(trace) && !is_zero(span)).then(|| (*trace).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_used() {
        let trace_id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            trace_id(&headers)
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        assert_eq!(trace_id(&format!("01-{trace}-00f067aa0ba902b7-01-more")).as_deref(), Some(trace));
        for text in [
            "",
            trace,
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(trace_id(text), None, "{text}");
        }
    }
}
