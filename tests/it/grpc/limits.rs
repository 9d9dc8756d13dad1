//! Limits on message size, and deadlines.

use std::time::Duration;

use kairos_identity::proto::ResolveTokenRequest;
use tonic::{Code, Request, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    engine::Engine,
    errors::assert_refused,
    people::{PASSWORD, login, registration},
    raw::Raw,
    server::{SLOW_HASH_COST, TestServer},
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_more_than_64_kib_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let huge = ResolveTokenRequest { auth_token: "x".repeat(70 * 1024) };

    let refusal = server.client().await.resolve_token(huge).await.unwrap_err();

    assert_eq!(refusal.code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_deadline_is_capped_at_the_maximum() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", SLOW_HASH_COST)
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "50ms")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_MAX", "100ms")
        .start()
        .await;
    let mut request = Request::new(login("unknown", PASSWORD));
    request.set_timeout(Duration::from_mins(1));

    let refusal = server.client().await.login(request).await.unwrap_err();

    assert_refused(&refusal, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_deadline_gets_the_default_deadline() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", SLOW_HASH_COST)
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "100ms")
        .start()
        .await;

    let refusal = server.client().await.login(login("unknown", PASSWORD)).await.unwrap_err();

    assert_refused(&refusal, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_timed_out_can_be_retried() {
    let server = TestServer::start(Engine::Sqlite).await;
    let request_id = uuid::Uuid::from_u128(5).to_string();
    let request =
        || kairos_identity::proto::RegisterRequest { request_id: request_id.clone(), ..registration("ada") };
    // The deadlines end at different moments: before the call is read, and before or after the commit. Which
    // ones are in time depends on the machine, so a call may succeed.
    for micros in [1, 100, 1_000, 2_000, 4_000] {
        let mut early = Request::new(request());
        early.set_timeout(Duration::from_micros(micros));
        if let Err(refusal) = server.client().await.register(early).await {
            let is_timeout = matches!(refusal.code(), Code::DeadlineExceeded | Code::Cancelled);
            assert!(is_timeout, "after {micros} µs: {refusal:?}");
        }
    }

    let user = server.client().await.register(request()).await.unwrap().into_inner().user.unwrap();

    assert_eq!(user.username, "ada");
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_the_health_service_is_short_and_arrives_soon() {
    let server = TestServer::start(Engine::Sqlite).await;
    let channel = server.channel().await;
    // The limit of a message is 1 KiB (`server.health-message-bytes-max`).
    let named = |length: usize| HealthCheckRequest { service: "x".repeat(length) };
    let mut health = HealthClient::new(channel.clone());
    assert_eq!(health.check(named(1_000)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(health.check(named(1_100)).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(health.watch(named(1_100)).await.unwrap_err().code(), Code::OutOfRange);

    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let never = Request::new(futures_util::stream::pending::<Vec<u8>>());
    let call = grpc.client_streaming(never, CHECK.parse().unwrap(), Raw);
    let refusal = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().unwrap_err();
    assert_refused(&refusal, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streaming_calls_of_one_peer_are_limited() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_STREAMING_CALLS_PER_PEER_MAX", "3")
        .start()
        .await;
    let watch = async || {
        let mut health = HealthClient::new(server.channel().await);
        health.watch(HealthCheckRequest::default()).await.map(|response| (response.into_inner(), health))
    };
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watch().await.unwrap());
    }

    // The fourth stream got the place of the first one. A call of reflection gets none.
    let (mut first, _connection) = open.remove(0);
    assert!(first.message().await.unwrap().is_some());
    assert_refused(&first.message().await.unwrap_err(), Code::ResourceExhausted, "OVERLOADED");
    let mut grpc = Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let request = Request::new(futures_util::stream::pending::<Vec<u8>>());
    let refusal = grpc.streaming(request, REFLECTION.parse().unwrap(), Raw).await.unwrap_err();
    assert_refused(&refusal, Code::ResourceExhausted, "OVERLOADED");

    open.pop();
    let again = async || {
        let request = Request::new(futures_util::stream::pending::<Vec<u8>>());
        let mut grpc = Grpc::new(server.channel().await);
        grpc.ready().await.unwrap();
        // Its response begins with its headers, before it ends.
        grpc.streaming(request, REFLECTION.parse().unwrap(), Raw).await.ok()
    };
    until("a place is free again", Duration::from_secs(5), again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_reflection_ends_at_the_maximum_time() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "300ms")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_MAX", "300ms")
        .start()
        .await;
    let mut grpc = Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let request = Request::new(futures_util::stream::pending::<Vec<u8>>());
    let mut answers = grpc.streaming(request, REFLECTION.parse().unwrap(), Raw).await.unwrap().into_inner();
    let end = tokio::time::timeout(Duration::from_secs(5), answers.message()).await;
    assert!(matches!(end, Ok(Ok(None))), "{end:?}");
}
