//! What is common to all calls: authentication, authorization, deadlines, logging, errors. Each mechanism has
//! its own file; `Layered::answer` applies them in order.

mod caller;
mod content_type;
mod deadline;
mod internal;
mod log;
mod methods;
mod panic;

use std::{ops::ControlFlow, pin::pin, time::Duration};

use http::{Request, Response};
use tonic::body::Body;

pub use self::methods::all_method_paths;
use self::{
    caller::Rejection,
    log::{Call, CallResult},
    methods::Methods,
};
use super::{request_id::RequestId, status::reason_name};
use crate::{
    callers::{CallSlot, Caller, CallerGate, Requester},
    domain::AuditEvent,
    env::Env,
    server::{HttpHandler, Peer},
};

/// The options and dependencies of the layers.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// The time limit of a call without a deadline.
    pub request_timeout_default: Duration,
    /// The time limit of any call, even if its deadline is later.
    pub request_timeout_max: Duration,
    /// Sources of time and randomness.
    pub env: Env,
    /// Authenticates callers.
    pub gate: CallerGate,
}

/// Handles the calls that the layers let pass.
pub trait CallHandler: Send + Sync + 'static {
    /// Handles one call of `requester`, whose caller is authenticated and may call the method.
    fn handle(
        &self,
        request: Request<Body>,
        requester: Requester,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// Records an audit event about a call that the layers rejected.
    fn record_rejection(&self, event: AuditEvent);
}

/// Services with the layers around them.
pub struct Layered<S> {
    services: S,
    options: LayerOptions,
    methods: Methods,
}

/// Wraps the services in the layers.
#[must_use]
pub fn wrap<S: CallHandler>(services: S, options: LayerOptions) -> Layered<S> {
    Layered { services, options, methods: Methods::all() }
}

/// The layers, from the outermost to the innermost:
///
/// 1. The request id, which the layers below use.
/// 2. The log, which sees every response, including rejections and panics, and calls that the caller
///    cancelled.
/// 3. The content type, before the request body is read.
/// 4. Authentication and authorization of the caller, before the deadline starts.
/// 5. The request id in INTERNAL responses. It encloses the panic layer, which creates such responses.
/// 6. Panics. It encloses the deadline layer, so that a panic and an exceeded deadline have different codes.
/// 7. The deadline, for the handler and the reading of the request body.
impl<S: CallHandler> HttpHandler for Layered<S> {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let id = RequestId::generate(&self.options.env.entropy);
        let mut call = Call::begin(&request, peer.address, id, &self.methods, &self.options.env.clock);
        let mut response = match self.admit(&request, peer, &mut call, id) {
            // The slot is held until the response is ready.
            ControlFlow::Continue((requester, _slot, limit)) => {
                // Pinned in place: passing a future by value copies it, here more than a thousand bytes each
                // time.
                let handler = pin!(self.services.handle(request, requester));
                let handler = pin!(panic::catch(deadline::within(limit, handler)));
                internal::with_request_id(id.scope(handler).await, id)
            }
            ControlFlow::Break(rejection) => rejection,
        };
        if call.end(&response) != CallResult::Success {
            id.write_to(&mut response);
        }
        response
    }
}

impl<S: CallHandler> Layered<S> {
    /// Returns the requester, its call slot and the time limit, or the response to a request that is rejected
    /// unread. A rejection is recorded in the audit trail, except for malformed requests.
    fn admit(
        &self,
        request: &Request<Body>,
        peer: &Peer,
        call: &mut Call,
        id: RequestId,
    ) -> ControlFlow<Response<Body>, (Requester, CallSlot, Duration)> {
        if let Some(rejection) = content_type::reject(request) {
            return ControlFlow::Break(rejection);
        }
        match self.admit_grpc(request, peer, call) {
            Ok(admitted) => ControlFlow::Continue(admitted),
            Err(Rejection { status, audited }) => {
                if let Some((kind, reason)) = audited {
                    let caller = call.caller().cloned().unwrap_or_else(Caller::unauthenticated);
                    let requester = Requester { caller, client: None, peer: Some(peer.ip()) };
                    let origin = requester.origin(None, Some(id.as_uuid()));
                    let event = AuditEvent::new(self.options.env.clock.now(), kind, origin)
                        .with_reason(reason_name(reason));
                    let resource = self.methods.find(request.uri().path()).map(str::to_owned);
                    self.services.record_rejection(AuditEvent { resource, ..event });
                }
                ControlFlow::Break(status.into_http())
            }
        }
    }

    fn admit_grpc(
        &self,
        request: &Request<Body>,
        peer: &Peer,
        call: &mut Call,
    ) -> Result<(Requester, CallSlot, Duration), Rejection> {
        let options = &self.options;
        let caller = caller::identify(&options.gate, request, peer)?;
        call.set_caller(&caller);
        let (requester, slot) = caller::authorize(caller, request, peer)?;
        let (default, max) = (options.request_timeout_default, options.request_timeout_max);
        Ok((requester, slot, deadline::limit(request.headers(), default, max)?))
    }
}

#[cfg(test)]
mod tests;
