use std::{
    future::pending,
    sync::{Arc, Mutex},
    thread,
};

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{super::request_id, *};
use crate::{
    domain::{AuditEvent, AuditKind},
    metrics::Registry,
    server::{ConnectionAccount, PeerLimits, WorkerThreads},
};

const PEER_LIMITS: PeerLimits = PeerLimits {
    connections_max: 1,
    calls_max: 1,
    streaming_calls_max: 1,
    unfinished_bytes_max: 1_024,
    unfinished_bytes_total_max: 1_024,
    waiting_bytes_total_max: 1_024,
};

fn peer() -> Peer {
    let account = Arc::new(ConnectionAccount::of_only_connection(PEER_LIMITS));
    Peer { address: "127.0.0.1:1".parse().unwrap(), names: Vec::new(), account }
}

/// The behavior of the handler inside the layers.
#[derive(Clone, Copy)]
enum Handler {
    ReturnsNotFound,
    Panics,
    Hangs,
    ReturnsInternal,
    /// Returns an error whose message is the name of the thread.
    NamesThread,
}

impl CallHandler for Handler {
    async fn handle(&self, _: Request<Body>, _: Requester) -> Response<Body> {
        match self {
            Self::ReturnsNotFound => Status::not_found("not found").into_http(),
            Self::Panics => panic!("a handler panics"),
            Self::Hangs => pending().await,
            Self::ReturnsInternal => Status::internal("a library's message").into_http(),
            Self::NamesThread => Status::not_found(thread::current().name().unwrap()).into_http(),
        }
    }
}

impl RecordEvent for Handler {
    fn record_event(&self, _: AuditEvent) {}
}

/// A handler, and the events that the layers record.
#[derive(Clone)]
struct Recorded {
    handler: Handler,
    events: Arc<Mutex<Vec<AuditEvent>>>,
}

impl CallHandler for Recorded {
    async fn handle(&self, request: Request<Body>, requester: Requester) -> Response<Body> {
        self.handler.handle(request, requester).await
    }
}

impl RecordEvent for Recorded {
    fn record_event(&self, event: AuditEvent) {
        self.events.lock().unwrap().push(event);
    }
}

/// Returns the kinds and reasons of the events that a call of this method leaves. A call that hangs is
/// cancelled.
async fn events_of(handler: Handler, method: &str) -> Vec<(AuditKind, &'static str)> {
    let recorded = Recorded { handler, events: Arc::default() };
    let path = format!("/kairos.identity.v1.IdentityService/{method}");
    let request = Request::post(path).header("content-type", "application/grpc").body(Body::empty()).unwrap();
    let peer = peer();
    let layered = wrap(recorded.clone(), options(Duration::from_secs(30)));
    let _cancelled = tokio::time::timeout(Duration::from_millis(20), layered.answer(request, &peer)).await;
    let events = recorded.events.lock().unwrap();
    events.iter().map(|event| (event.kind, event.reason.unwrap())).collect()
}

fn options(request_timeout_default: Duration) -> LayerOptions {
    LayerOptions {
        limits: RequestLimits {
            message_bytes_max: 1_024,
            health_message_bytes_max: 1_024,
            timeout_default: request_timeout_default,
            timeout_max: request_timeout_default.max(Duration::from_millis(100)),
            health_timeout: Duration::from_millis(100),
        },
        env: Env::system(),
        gate: CallerGate::open(),
        metrics: CallMetrics::new(&mut Registry::default()),
    }
}

fn request() -> http::request::Builder {
    Request::post("/test.Service/Call").header("content-type", "application/grpc")
}

async fn respond(handler: Handler, request: http::request::Builder) -> Response<Body> {
    let options = options(Duration::from_millis(50));
    let peer = peer();
    wrap(handler, options).answer(request.body(Body::empty()).unwrap(), &peer).await
}

async fn status_of(handler: Handler, request: http::request::Builder) -> Status {
    Status::from_header_map(respond(handler, request).await.headers()).unwrap()
}

/// Returns the status of a call that hangs until a limit ends it, which must be within ten seconds.
async fn status_of_hanging_call(options: LayerOptions, request: http::request::Builder) -> Status {
    let (layered, peer) = (wrap(Handler::Hangs, options), peer());
    let request = request.body(Body::empty()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), layered.answer(request, &peer));
    let response = answer.await.expect("a limit ends the call");
    Status::from_header_map(response.headers()).unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn every_error_has_a_request_id_of_its_own() {
    let ids: Vec<_> = [
        respond(Handler::ReturnsNotFound, request()).await,
        respond(Handler::Panics, request().header(request_id::HEADER, "chosen-by-the-caller")).await,
        respond(Handler::ReturnsNotFound, Request::get("/")).await,
    ]
    .iter()
    .map(|response| response.headers()[request_id::HEADER].to_str().unwrap().to_owned())
    .collect();

    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_panic_is_internal_with_the_request_id() {
    let response = respond(Handler::Panics, request()).await;
    let status = Status::from_header_map(response.headers()).unwrap();

    assert_eq!(
        (status.code(), status.message(), reason(&status).as_str()),
        (Code::Internal, "internal error", "INTERNAL")
    );
    let id = response.headers()[request_id::HEADER].to_str().unwrap();
    assert_eq!(status.get_details_request_info().unwrap().request_id, id);
}

#[tokio::test]
async fn a_message_that_a_library_cannot_decode_is_an_invalid_argument() {
    let status = status_of(Handler::ReturnsInternal, request()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    let violation = status.get_details_bad_request().unwrap().field_violations.remove(0);
    assert_eq!(violation.field, "body");
    assert!(!status.message().contains("a library's message"), "{status:?}");
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_default_limit() {
    let mut options = options(Duration::from_millis(50));
    // Only `timeout_default` ends the call in time.
    options.limits.timeout_max = Duration::from_mins(1);
    let status = status_of_hanging_call(options, request()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_short_and_a_too_long_deadline_of_the_caller_end_the_call() {
    // 1 millisecond: `timeout_default` does not end the call in time.
    let short = request().header("grpc-timeout", "1m");
    let status = status_of_hanging_call(options(Duration::from_mins(1)), short).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);

    // 1 hour, which is longer than `timeout_max`.
    let long = request().header("grpc-timeout", "1H");
    let status = status_of_hanging_call(options(Duration::from_millis(50)), long).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_malformed_deadline_is_rejected() {
    let status = status_of(Handler::ReturnsNotFound, request().header("grpc-timeout", "soon")).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
}

#[tokio::test]
async fn a_request_that_is_not_grpc_gets_an_http_error() {
    for (content_type, code) in [
        ("application/grpc", StatusCode::OK),
        ("application/grpc+proto", StatusCode::OK),
        ("application/grpc; charset=utf-8", StatusCode::OK),
        ("application/grpc+json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/grpc-web", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let request = Request::post("/test.Service/Call").header("content-type", content_type);
        assert_eq!(respond(Handler::ReturnsNotFound, request).await.status(), code, "{content_type}");
    }
    let get = Request::get("/test.Service/Call").header("content-type", "application/grpc");
    assert_eq!(respond(Handler::ReturnsNotFound, get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let without = Request::post("/test.Service/Call");
    assert_eq!(respond(Handler::ReturnsNotFound, without).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn an_error_leaves_an_event_unless_it_is_a_look_up_that_failed_or_was_cancelled() {
    use AuditKind::{AuthnLoginFail, InputValidationFail, SensitiveReadFail};
    for (handler, method, events) in [
        // INTERNAL without a reason: the request message could not be read.
        (Handler::ReturnsInternal, "Login", vec![(InputValidationFail, "INVALID_FIELDS")]),
        (Handler::ReturnsInternal, "ResolveToken", vec![(InputValidationFail, "INVALID_FIELDS")]),
        (Handler::Panics, "Login", vec![(AuthnLoginFail, "INTERNAL")]),
        (Handler::Hangs, "Login", vec![(AuthnLoginFail, "CANCELLED")]),
        (Handler::ReturnsNotFound, "ResolveToken", vec![(SensitiveReadFail, "NOT_FOUND")]),
        (Handler::ReturnsNotFound, "NoSuchMethod", vec![(InputValidationFail, "NOT_FOUND")]),
        // A look-up that fails or is cancelled is in the log only.
        (Handler::Panics, "ResolveToken", Vec::new()),
        (Handler::Hangs, "ResolveToken", Vec::new()),
    ] {
        assert_eq!(events_of(handler, method).await, events, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_look_up_runs_on_the_thread_of_its_connection() {
    let layered = Arc::new(wrap(Handler::NamesThread, options(Duration::from_secs(30))));
    let threads = WorkerThreads::start(1).unwrap();
    let mut on_thread = Vec::new();
    for path in all_method_paths() {
        let (layered, request) = (Arc::clone(&layered), Request::post(&path));
        let request = request.header("content-type", "application/grpc").body(Body::empty()).unwrap();
        let call = async move { layered.answer(request, &peer()).await };
        let response = threads.workers().runtimes()[0].spawn(call).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        if status.message() == "serve-0" {
            on_thread.push(path);
        }
    }
    let look_ups =
        ["ResolveToken", "ResolveTokens"].map(|name| format!("/kairos.identity.v1.IdentityService/{name}"));
    assert_eq!(on_thread, look_ups);
}
