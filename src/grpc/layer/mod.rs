//! What every call passes through, whatever it asks for: one mechanism a file, and `answer` as the one place that says
//! in which order.

mod caller;
mod content_type;
mod deadline;
mod internal;
mod log;
mod methods;
mod panic;
mod request_id;

use std::{ops::ControlFlow, pin::pin, time::Duration};

use http::{Request, Response};
use tonic::body::Body;

pub use self::methods::paths_of_every_service;
pub(super) use self::request_id::{RequestId, current as current_request_id};
use self::{
    caller::Refused,
    log::{Call, Ended},
    methods::Methods,
};
use super::status::name;
use crate::{
    callers::{Caller, CallerGate, Ongoing, Requester},
    clock::Clock,
    domain::AuditEvent,
    entropy::Entropy,
    server::{Peer, Served},
};

/// What the layers work with.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// How long a call may take whose caller set no deadline.
    pub request_timeout_default: Duration,
    /// How long a call may take whatever its caller says.
    pub request_timeout_max: Duration,
    /// Measures how long calls take, and dates refusals.
    pub clock: Clock,
    /// Draws request ids.
    pub entropy: Entropy,
    /// Who may call.
    pub gate: CallerGate,
}

/// What stands behind the layers: it answers whatever it is asked.
pub trait Answers: Send + Sync + 'static {
    /// Answers one call of `requester`, who may make it.
    fn answer(
        &self,
        request: Request<Body>,
        requester: Requester,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// Is told of whom the layers turned away.
    fn refused(&self, event: AuditEvent);
}

/// The services behind the layers.
pub struct Layered<S> {
    services: S,
    options: LayerOptions,
    methods: Methods,
}

/// Puts the services behind the layers.
#[must_use]
pub fn wrap<S: Answers>(services: S, options: LayerOptions) -> Layered<S> {
    Layered { services, options, methods: Methods::of_every_service() }
}

/// The order: each stands around those below it.
///
/// 1. The request id, which all that follows may name.
/// 2. The log, which sees every answer, refusals and panics among them, and calls whose caller went away.
/// 3. The content type, before anything of the request is read.
/// 4. The caller, before the deadline begins.
/// 5. INTERNAL answers get the request id; outside of panics, which become such answers.
/// 6. Panics; outside of the deadline, so that one is told apart from the other.
/// 7. The deadline, around the handler and the reading of the request.
impl<S: Answers> Served for Layered<S> {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let id = RequestId::draw(&self.options.entropy);
        let mut call = Call::begin(&request, peer.address, id, &self.methods, &self.options.clock);
        let mut response = match self.admit(&request, peer, &mut call, id) {
            // Its place among its caller's calls is held until it is answered.
            ControlFlow::Continue((requester, _ongoing, limit)) => {
                // Pinned where they are made: a future that is passed on is copied, this one some thousand bytes each time.
                let handler = pin!(self.services.answer(request, requester));
                let handler = pin!(panic::caught(deadline::within(limit, handler)));
                internal::with_request_id(id.scope(handler).await, id)
            }
            ControlFlow::Break(refusal) => refusal,
        };
        if call.end(&response) != Ended::Well {
            id.write_to(&mut response);
        }
        response
    }
}

impl<S: Answers> Layered<S> {
    /// Who calls and how long it may take, or the refusal of what is never read.
    fn admit(
        &self,
        request: &Request<Body>,
        peer: &Peer,
        call: &mut Call,
        id: RequestId,
    ) -> ControlFlow<Response<Body>, (Requester, Ongoing, Duration)> {
        if let Some(refusal) = content_type::refuse(request) {
            return ControlFlow::Break(refusal);
        }
        match self.admit_grpc(request, peer, call) {
            Ok(admitted) => ControlFlow::Continue(admitted),
            Err(Refused { status, audited }) => {
                if let Some((kind, reason)) = audited {
                    let caller = call.caller().cloned().unwrap_or_else(Caller::nobody);
                    let requester = Requester { caller, client: None, peer: Some(peer.ip()) };
                    let origin = requester.origin(None, Some(id.as_uuid()));
                    let event = AuditEvent::new(self.options.clock.now(), kind, origin).refused(name(reason));
                    let resource = self.methods.find(request.uri().path()).map(str::to_owned);
                    self.services.refused(AuditEvent { resource, ..event });
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
    ) -> Result<(Requester, Ongoing, Duration), Refused> {
        let options = &self.options;
        let caller = caller::identify(&options.gate, request, peer)?;
        call.is_of(&caller);
        let (requester, ongoing) = caller::authorize(caller, request, peer)?;
        let (default, max) = (options.request_timeout_default, options.request_timeout_max);
        Ok((requester, ongoing, deadline::limit(request.headers(), default, max)?))
    }
}

#[cfg(test)]
mod tests;
