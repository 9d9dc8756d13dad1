//! The audit event of each call. Every call passes here, so no decision is missing from the trail: if the
//! operation has recorded no event, the layer records one.

use std::{net::IpAddr, sync::Arc};

use tonic::Code;

use super::{
    super::{
        request_id::RequestId,
        status::{code_name, reason_name},
    },
    log::CallResult,
    methods::Method,
};
use crate::{
    callers::{Caller, Requester},
    clock::Clock,
    domain::{AuditEvent, AuditKind, CallNote, ClientAddress},
    proto::ErrorReason,
};

/// Records the events of calls.
pub trait RecordEvent: Send + Sync {
    /// Records an event, unless an event of the same call was recorded before.
    fn record_event(&self, event: AuditEvent);
}

/// A call in flight. If it is dropped before [`CallTrail::end`], the caller has cancelled it, and the event
/// of an admitted call has the reason CANCELLED.
pub(super) struct CallTrail<'a> {
    recorder: &'a dyn RecordEvent,
    clock: &'a Clock,
    method: Option<Method>,
    id: RequestId,
    peer: IpAddr,
    /// The end user's address in an admitted call.
    client: Option<ClientAddress>,
    /// The source of an admitted call. `None` before the call is admitted, and for a look-up, which is not
    /// recorded if it is cancelled.
    requester: Option<Requester>,
    is_ended: bool,
}

impl<'a> CallTrail<'a> {
    pub(super) const fn begin(
        recorder: &'a dyn RecordEvent,
        clock: &'a Clock,
        method: Option<Method>,
        id: RequestId,
        peer: IpAddr,
    ) -> Self {
        Self { recorder, clock, method, id, peer, client: None, requester: None, is_ended: false }
    }

    /// Returns the note that the handler and its operation share with this layer; `None` for a look-up.
    pub(super) fn note(&self) -> Option<CallNote> {
        let is_look_up = self.method.is_some_and(Method::is_look_up);
        (!is_look_up).then(CallNote::begin)
    }

    /// Sets the source of an admitted call.
    pub(super) fn set_requester(&mut self, requester: &Requester) {
        self.client = requester.client;
        if !self.method.is_some_and(Method::is_look_up) {
            self.requester = Some(requester.clone());
        }
    }

    /// Records the event of the call, if its operation has recorded none.
    pub(super) fn end(&mut self, result: &CallResult, caller: Option<&Arc<Caller>>) {
        self.is_ended = true;
        let (kind, reason) = match result {
            CallResult::HttpError => return,
            CallResult::Success => (self.method.and_then(|method| method.policy.success), None),
            CallResult::Error { code, reason } => {
                let known = reason.as_deref().and_then(known_reason);
                let text = known.map_or(code_name(*code), reason_name);
                (self.kind_of_error(*code, known), Some(text))
            }
        };
        if let Some(kind) = kind {
            self.record(kind, reason, caller);
        }
    }

    /// Returns the kind of an error; `None` if it is not recorded.
    fn kind_of_error(&self, code: Code, reason: Option<ErrorReason>) -> Option<AuditKind> {
        use ErrorReason as R;
        match reason {
            Some(R::CallerUnknown | R::CallerNotAllowed | R::InvalidAccessToken) => {
                return Some(AuditKind::AuthzFail);
            }
            Some(R::TooManyAttempts | R::Overloaded) => return Some(AuditKind::ExcessRateLimitExceeded),
            Some(R::InvalidFields) => return Some(AuditKind::InputValidationFail),
            _ => {}
        }
        let Some(method) = self.method else { return Some(AuditKind::InputValidationFail) };
        // The service failed or the call was cancelled; all other codes are refusals.
        let is_failure = matches!(
            code,
            Code::Internal
                | Code::DataLoss
                | Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
        );
        match method.policy.refusal {
            Some(_) if is_failure && method.is_look_up() => None,
            // The message is too long, or it is compressed.
            Some(_) if code == Code::OutOfRange || code == Code::Unimplemented => {
                Some(AuditKind::InputValidationFail)
            }
            refusal => refusal,
        }
    }

    fn record(&self, kind: AuditKind, reason: Option<&'static str>, caller: Option<&Arc<Caller>>) {
        let requester = self.requester.clone().unwrap_or_else(|| Requester {
            caller: caller.cloned().unwrap_or_else(Caller::unauthenticated),
            client: self.client,
            agent: None,
            peer: Some(self.peer),
            note: CallNote::default(),
        });
        let origin = requester.origin(Some(self.id.as_uuid()));
        let mut event = AuditEvent::new(self.clock.now(), kind, origin);
        event.reason = reason;
        event.resource = self.method.map(|method| method.path.to_owned());
        self.recorder.record_event(event);
    }
}

impl Drop for CallTrail<'_> {
    fn drop(&mut self) {
        let refusal = self.method.and_then(|method| method.policy.refusal);
        if let (false, Some(kind), Some(_)) = (self.is_ended, refusal, &self.requester) {
            self.record(kind, Some(code_name(Code::Cancelled)), None);
        }
    }
}

/// Returns the reason with this name.
fn known_reason(name: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}"))
}
