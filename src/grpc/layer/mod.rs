//! What every call passes through, whatever it asks for: one mechanism a file, and `answer` as the one place that says
//! in which order.

mod content_type;
mod deadline;
mod internal;
mod log;
mod methods;
mod panic;
mod request_id;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

pub(super) use self::request_id::current as current_request_id;
use self::{
    log::{Call, Ended},
    methods::Methods,
    request_id::RequestId,
};
use crate::{clock::Clock, entropy::Entropy};

/// What the layers work with.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// How long a call may take whose caller set no deadline.
    pub request_timeout_default: Duration,
    /// How long a call may take whatever its caller says.
    pub request_timeout_max: Duration,
    /// Measures how long calls take.
    pub clock: Clock,
    /// Draws request ids.
    pub entropy: Entropy,
}

/// The services behind the layers. Cheap to clone.
#[derive(Clone)]
pub struct Layered<S> {
    services: S,
    options: Arc<LayerOptions>,
    methods: Arc<Methods>,
}

/// Puts the services behind the layers.
#[must_use]
pub fn wrap<S>(services: S, options: LayerOptions) -> Layered<S> {
    let methods = Arc::new(Methods::of_every_service());
    Layered { services, options: Arc::new(options), methods }
}

/// The order: each stands around those below it.
///
/// 1. The request id, which all that follows may name.
/// 2. The log, which sees every answer, refusals and panics among them, and calls whose caller went away.
/// 3. The content type, before anything of the request is read.
/// 4. INTERNAL answers get the request id; outside of panics, which become such answers.
/// 5. Panics; outside of the deadline, so that one is told apart from the other.
/// 6. The deadline, around the handler and the reading of the request.
async fn answer<S: Answers>(layered: Layered<S>, request: Request<Body>) -> Response<Body> {
    let Layered { mut services, options, methods } = layered;
    let id = RequestId::draw(&options.entropy);
    let call = Call::begin(&request, id, &methods, options.clock.clone());
    let work = async {
        if let Some(refusal) = content_type::refuse(&request) {
            return refusal;
        }
        let limit =
            deadline::limit(request.headers(), options.request_timeout_default, options.request_timeout_max);
        let answered = match limit {
            Ok(limit) => panic::caught(deadline::within(limit, services.call(request))).await,
            Err(refusal) => refusal.into_http(),
        };
        internal::with_request_id(answered, id)
    };
    let mut response = id.scope(work).await;
    if call.end(&response) != Ended::Well {
        id.write_to(&mut response);
    }
    response
}

/// What stands behind the layers: it answers whatever it is asked, and is always ready to be.
pub trait Answers:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

impl<S: Answers> Service<Request<Body>> for Layered<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let layered = self.clone();
        Box::pin(async move { Ok(answer(layered, request).await) })
    }
}

#[cfg(test)]
mod tests;
