//! What is common to all calls: authentication, authorization, deadlines, logging, errors. Each mechanism has
//! its own file; `Layered::answer` applies them in order.

mod audit;
mod caller;
mod deadline;
mod http_refusal;
mod internal;
mod limits;
mod log;
mod methods;
mod metrics;
mod off_thread;
mod panic;
mod policy;
mod unknown_method;

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::runtime::Handle;
use tonic::{Code, Status, body::Body};

use self::{
    audit::CallTrail,
    limits::{PathClass, StreamingBody},
    log::{Call, CallReports, CallResult},
    methods::Method,
};
pub use self::{audit::RecordEvent, limits::RequestLimits, methods::all_method_paths, metrics::CallMetrics};
pub(super) use self::{
    deadline::{CONNECT_TIMEOUT, GRPC_TIMEOUT},
    http_refusal::{OfBrowser, is_method_path},
};
use super::{request_id::RequestId, status::code_name};
use crate::{
    callers::{CallSlot, Caller, CallerGate, Requester},
    env::Env,
    server::{BodyLimit, BodyLimits, BodyRefusal, HttpHandler, Peer, PeerLog, StreamingSlot},
};

/// The options and dependencies of the layers.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// The limits of requests.
    pub limits: RequestLimits,
    /// Sources of time and randomness.
    pub env: Env,
    /// Authenticates callers.
    pub gate: CallerGate,
    /// Counts and measures calls.
    pub metrics: CallMetrics,
}

/// Handles the calls that the layers let pass, and records the events of those whose operation recorded none.
pub trait CallHandler: RecordEvent + 'static {
    /// Handles one call of `requester`, whose caller may call the method. The caller is authenticated, except
    /// in a call of health, or if there is no callers file.
    fn handle(
        &self,
        request: Request<Body>,
        requester: Requester,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Services with the layers around them.
pub struct Layered<S> {
    services: Arc<S>,
    options: LayerOptions,
    reports: CallReports,
    /// The runtime of the calls that are not look-ups.
    runtime: Handle,
}

/// Wraps the services in the layers. Must be called within the runtime on which the calls that are not
/// look-ups are to run; look-ups run on the thread of their connection.
#[must_use]
pub fn wrap<S: CallHandler>(services: S, options: LayerOptions) -> Layered<S> {
    let peer_log = PeerLog::new(options.env.clock.clone());
    let reports = CallReports { peer_log, metrics: options.metrics.clone() };
    Layered { services: Arc::new(services), options, reports, runtime: Handle::current() }
}

/// A request that the layers let pass.
struct Admitted {
    requester: Requester,
    /// Held until the handler has ended.
    slot: CallSlot,
    /// For a streaming call; held until the stream has ended.
    streaming: Option<Arc<StreamingSlot>>,
    /// The time in which the response must be ready.
    limit: Duration,
}

impl<S> BodyLimits for Layered<S> {
    fn body_limit(&self, path: &str) -> BodyLimit {
        self.options.limits.body_limit(PathClass::of(path))
    }

    fn reserved_bytes(first_frame: &[u8]) -> usize {
        limits::reserved_bytes(first_frame)
    }

    fn body_refused(refusal: BodyRefusal) -> Status {
        limits::body_refused(refusal)
    }
}

/// The layers, from the outermost to the innermost. The limits on request bodies ([`BodyLimits`]) enclose
/// them all.
///
/// 1. The request id, which the layers below use.
/// 2. The log and the metrics, which see every response, including rejections and panics, and calls that the
///    caller cancelled.
/// 3. The audit trail, which sees the same, and records each call whose operation has recorded no event.
/// 4. Requests that are no calls, and those of browsers, before the request body is read.
/// 5. Authentication and authorization of the caller, and then the limits of the peer, before the deadline
///    starts.
/// 6. The request id in INTERNAL responses. It encloses the panic layer, which creates such responses.
/// 7. The deadline, for the handler and the reading of the request body.
/// 8. The thread: a look-up stays on that of its connection, as does a call of an unknown method; every other
///    call leaves it (`off_thread.rs`).
/// 9. Panics of the handler.
impl<S: CallHandler> HttpHandler for Layered<S> {
    async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let id = RequestId::generate(&self.options.env.entropy);
        let (clock, method) = (&self.options.env.clock, Method::find(request.uri().path()));
        let mut call = Call::begin(&request, peer.address, id, method, clock, &self.reports);
        let mut trail = CallTrail::begin(&*self.services, clock, method, id, peer.ip());
        let mut response = match self.admit(&request, peer, &mut call, &mut trail) {
            ControlFlow::Continue(Admitted { requester, slot, streaming, limit }) => {
                let request = match &streaming {
                    Some(slot) => {
                        // `limit` ends with the headers of the response; the stream may last longer.
                        let stream_limit = self.options.limits.timeout_max;
                        request.map(|body| StreamingBody::request(body, slot, stream_limit))
                    }
                    None => request,
                };
                // The answer to an unknown method is as quick as a look-up.
                let response = if method.is_none_or(Method::is_look_up) {
                    // Pinned in place: passing a future by value copies it, here more than a thousand bytes
                    // each time.
                    let handler = pin!(self.services.handle(request, requester));
                    let handler = pin!(id.scope(panic::catch(handler)));
                    let response = deadline::within(limit, handler).await;
                    drop(slot);
                    response
                } else {
                    // A streaming call may get its first response before it sends a message.
                    let has_one_message = streaming.is_none();
                    let handled = self.handle_off_thread(request, requester, id, slot, has_one_message);
                    deadline::within(limit, handled).await
                };
                let response = internal::complete(response, id, || {
                    call.is_admitted(
                        code_name(Code::InvalidArgument),
                        Some("a message that cannot be decoded"),
                    )
                });
                match streaming {
                    Some(slot) => StreamingBody::response(response, slot),
                    None => response,
                }
            }
            ControlFlow::Break(rejection) => rejection,
        };
        if method.is_none() {
            response = unknown_method::with_message(response);
        }
        let result = call.end(&response);
        trail.end(&result, call.caller());
        if result == CallResult::Success {
            let is_of_health = || method.is_none_or(|method| PathClass::of(method.path).is_of_health());
            if !peer.account.has_served() && !is_of_health() {
                peer.account.set_served();
            }
        } else {
            id.write_to(&mut response);
        }
        response
    }
}

impl<S: CallHandler> Layered<S> {
    /// Handles a call on the runtime of the process: at once, or, if it has one message, when the message
    /// begins.
    fn handle_off_thread(
        &self,
        mut request: Request<Body>,
        requester: Requester,
        id: RequestId,
        slot: CallSlot,
        has_one_message: bool,
    ) -> BoxFuture<'_, Response<Body>> {
        // Boxed, so that the future of a look-up has no room for it. Not an async function: its future would
        // hold each argument twice.
        Box::pin(async move {
            if has_one_message {
                off_thread::wait_for_first_frame(&mut request).await;
            }
            let services = Arc::clone(&self.services);
            let handler = async move {
                let response = panic::catch(services.handle(request, requester)).await;
                drop(slot);
                response
            };
            off_thread::run(&self.runtime, id.scope(handler)).await
        })
    }

    /// Returns the admitted request, or the response to a request that is rejected unread.
    fn admit(
        &self,
        request: &Request<Body>,
        peer: &Peer,
        call: &mut Call,
        trail: &mut CallTrail,
    ) -> ControlFlow<Response<Body>, Admitted> {
        if let Some(refusal) = http_refusal::refuse(request) {
            return ControlFlow::Break(refusal);
        }
        match self.admit_grpc(request, peer, call, trail) {
            Ok(admitted) => ControlFlow::Continue(admitted),
            Err(status) => ControlFlow::Break(status.into_http()),
        }
    }

    fn admit_grpc(
        &self,
        request: &Request<Body>,
        peer: &Peer,
        call: &mut Call,
        trail: &mut CallTrail,
    ) -> Result<Admitted, Status> {
        let options = &self.options;
        let class = PathClass::of(request.uri().path());
        let caller = if class.is_of_health() {
            // Load balancers check the health without a token. If a monitor sends one, its connection uses
            // the account of the callers; the call itself needs no caller.
            if !options.gate.is_open()
                && let Ok(caller) = caller::identify(&options.gate, request, peer)
            {
                peer.account.set_authenticated(caller.name());
            }
            Caller::unauthenticated()
        } else {
            caller::identify(&options.gate, request, peer)?
        };
        call.set_caller(&caller);
        let slot = caller::authorize(&caller, request)?;
        // Only after `authorize`: a connection whose caller may not call the method stays one of a stranger.
        if !class.is_of_health() && !options.gate.is_open() {
            peer.account.set_authenticated(caller.name());
        }
        let streaming = limits::admit_peer(class, peer)?;
        let requester = caller::requester(caller, request, peer, trail.note())?;
        trail.set_requester(&requester);
        let limit = options.limits.timeout(class, request.headers())?;
        Ok(Admitted { requester, slot, streaming, limit })
    }
}

#[cfg(test)]
mod tests;
