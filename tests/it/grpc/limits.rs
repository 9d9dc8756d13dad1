//! Limits on message size, and deadlines.

use std::time::Duration;

use kairos_identity::proto::ResolveTokenRequest;
use tonic::{Code, Request};

use crate::support::{
    engine::Engine,
    errors::assert_refused,
    people::{PASSWORD, login, registration},
    server::{SLOW_HASH_COST, TestServer},
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
