use std::future::pending;

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::*;

/// What the handler behind the layers does.
#[derive(Clone, Copy)]
enum Handler {
    Answers,
    Panics,
    Hangs,
    Breaks,
}

impl super::Answers for Handler {
    async fn answer(&self, _: Request<Body>, _: Requester) -> Response<Body> {
        match self {
            Self::Answers => Status::not_found("nobody").into_http(),
            Self::Panics => panic!("a handler panics"),
            Self::Hangs => pending().await,
            Self::Breaks => Status::internal("a library's words").into_http(),
        }
    }

    fn refused(&self, _: AuditEvent) {}
}

fn request() -> http::request::Builder {
    Request::post("/test.Service/Call").header("content-type", "application/grpc")
}

async fn answer_to(handler: Handler, request: http::request::Builder) -> Response<Body> {
    let options = LayerOptions {
        request_timeout_default: Duration::from_millis(50),
        request_timeout_max: Duration::from_millis(100),
        clock: Clock::system(),
        entropy: Entropy::system(),
        gate: CallerGate::open(),
    };
    let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), names: Vec::new() };
    wrap(handler, options).answer(request.body(Body::empty()).unwrap(), &peer).await
}

async fn status_of(handler: Handler, request: http::request::Builder) -> Status {
    Status::from_header_map(answer_to(handler, request).await.headers()).unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn every_error_has_its_own_request_id() {
    let ids: Vec<_> = [
        answer_to(Handler::Answers, request()).await,
        answer_to(Handler::Panics, request().header(request_id::HEADER, "chosen-by-the-caller")).await,
        answer_to(Handler::Answers, Request::get("/")).await,
    ]
    .iter()
    .map(|response| response.headers()[request_id::HEADER].to_str().unwrap().to_owned())
    .collect();

    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_panic_is_internal_and_names_the_request() {
    let response = answer_to(Handler::Panics, request()).await;
    let status = Status::from_header_map(response.headers()).unwrap();

    assert_eq!(
        (status.code(), status.message(), reason(&status).as_str()),
        (Code::Internal, "internal error", "INTERNAL")
    );
    let id = response.headers()[request_id::HEADER].to_str().unwrap();
    assert_eq!(status.get_details_request_info().unwrap().request_id, id);
}

#[tokio::test]
async fn an_internal_error_of_a_library_gets_a_reason_too() {
    let status = status_of(Handler::Breaks, request()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
    assert!(status.get_details_request_info().is_some());
}

#[tokio::test]
async fn a_call_without_a_deadline_ends_at_the_default() {
    let status = status_of(Handler::Hangs, request()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_caller_may_set_a_shorter_deadline_and_no_longer_one_than_the_longest() {
    for timeout in ["1m", "1H"] {
        let status = status_of(Handler::Hangs, request().header("grpc-timeout", timeout)).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout}");
    }
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let status = status_of(Handler::Answers, request().header("grpc-timeout", "soon")).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
}

#[tokio::test]
async fn what_is_not_grpc_is_refused_by_http() {
    for (content_type, code) in [
        ("application/grpc", StatusCode::OK),
        ("application/grpc+proto", StatusCode::OK),
        ("application/grpc; charset=utf-8", StatusCode::OK),
        ("application/grpc+json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/grpc-web", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let request = Request::post("/test.Service/Call").header("content-type", content_type);
        assert_eq!(answer_to(Handler::Answers, request).await.status(), code, "{content_type}");
    }
    let get = Request::get("/test.Service/Call").header("content-type", "application/grpc");
    assert_eq!(answer_to(Handler::Answers, get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let without = Request::post("/test.Service/Call");
    assert_eq!(answer_to(Handler::Answers, without).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
