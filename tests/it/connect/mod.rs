//! The protocols beside gRPC on the API port: Connect's unary calls with JSON or protobuf, and gRPC-Web, over
//! HTTP/1.1 and HTTP/2 (docs/http.md).

mod client;
mod compression;
mod curl;
mod health;
mod http1;
mod lives;
mod malformed;
mod violations;

use std::collections::BTreeMap;

use http::{Request, StatusCode, Version};
use kairos_identity::proto::ResolveTokenRequest;
use prost::Message;
use tonic::Code;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use self::client::{Protocol, comparable, post, send, send_json, send_json_with};
use crate::support::{
    api::methods,
    audit::audit,
    callers::{CallersFile, token},
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{PASSWORD, address, by_email},
    server::{SLOW_HASH_COST, TestServer},
};

const RESOLVE: &str = "/kairos.identity.v1.IdentityService/ResolveToken";
const REGISTER: &str = "/kairos.identity.v1.IdentityService/Register";
const LOGIN: &str = "/kairos.identity.v1.IdentityService/Login";
const UNKNOWN: &str = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";

/// Calls every method with an empty message: without a token, with an unknown one, with the one of a caller
/// that may call it, and of one that may not. Returns the answers, and the rows of the audit trail.
async fn call_everything(engine: Engine, protocol: Protocol) -> (Vec<String>, BTreeMap<String, usize>) {
    let (bff, monitor) = (token(1), token(2));
    let database = TestDatabase::new(engine);
    let file = CallersFile::new(&[("bff", &bff, "*", "*"), ("monitor", &monitor, "ServerReflection/*", "*")]);
    let mut server = file.serve_on(TestServer::on_url(database.url().to_owned())).await;
    let (unknown, mut answers) = (token(3), Vec::new());
    for path in methods() {
        for caller in [None, Some(&unknown), Some(&monitor), Some(&bff)] {
            let bearer = caller.map(|token| token.expose().to_owned());
            let answer = comparable(protocol.call_empty(&server, &path, bearer.as_deref()).await);
            answers.push(format!("{path} {answer}"));
        }
    }
    // At shutdown, the whole trail is written.
    server.terminate();
    server.wait().await;
    let lines = audit(&server, &[]);
    assert!(lines.iter().map(|line| line.count).sum::<usize>() >= methods().len() * 3, "{lines:?}");
    // Equal events of one minute are one row, so the counts of rows are added.
    let mut rows = BTreeMap::new();
    for line in lines {
        let row = format!("{} {} {:?}", line.decision(), line.caller, line.resource);
        *rows.entry(row).or_insert(0) += line.count;
    }
    (answers, rows)
}

on_both_engines! {
    async fn every_method_answers_the_same_over_each_protocol(engine: Engine) {
        let (answers, rows) = call_everything(engine, Protocol::Grpc).await;
        assert_eq!(answers.len(), methods().len() * 4);
        for protocol in &Protocol::ALL[1..] {
            let (found, found_rows) = call_everything(engine, *protocol).await;
            for (expected, found) in answers.iter().zip(&found) {
                assert_eq!(found, expected, "{protocol:?}");
            }
            assert_eq!(found_rows, rows, "{protocol:?}");
        }
    }

    async fn a_message_is_the_same_over_each_protocol(engine: Engine) {
        let server = TestServer::start(engine).await;
        let user = server.member("ada").await;
        let request = ResolveTokenRequest { auth_token: user.auth_token.clone() };
        let answer = server.client().await.resolve_token(request.clone()).await.unwrap().into_inner();

        for version in [Version::HTTP_11, Version::HTTP_2] {
            let proto = post(&server, RESOLVE, Some("application/proto"), &[]);
            let proto = send(server.address(), version, proto, &request.encode_to_vec()).await;
            assert_eq!((proto.status, &proto.headers["content-type"]), (StatusCode::OK, &"application/proto".parse().unwrap()));
            assert_eq!(proto.body, answer.encode_to_vec());

            let json = post(&server, RESOLVE, Some("application/json; charset=utf-8"), &[("connect-protocol-version", "1")]);
            let body = serde_json::json!({"authToken": user.auth_token}).to_string();
            let json = send(server.address(), version, json, body.as_bytes()).await;
            let json = &json.json()["user"];
            assert_eq!((&json["authToken"], &json["username"]), (&user.auth_token.as_str().into(), &"ada".into()));
            assert_eq!((&json["isVerified"], json["createdAt"].as_str().unwrap().ends_with('Z')), (&true.into(), true));
            assert_eq!(json["state"], "USER_STATE_ACTIVE");
        }
        // A field with its default value is left out.
        let eve = server.unverified_user("eve").await;
        let json = send_json(&server, RESOLVE, serde_json::json!({"auth_token": eve.auth_token}).to_string()).await;
        assert!(json.json()["user"].get("isVerified").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_has_the_http_status_and_the_request_id() {
    let server = TestServer::start(Engine::Sqlite).await;
    let unknown = send_json(&server, RESOLVE, format!(r#"{{"authToken": "{UNKNOWN}"}}"#)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_refused(&unknown.error(), Code::NotFound, "USER_NOT_FOUND");
    assert!(uuid::Uuid::parse_str(unknown.headers["kairos-request-id"].to_str().unwrap()).is_ok());
    assert!(!unknown.headers.contains_key("grpc-status"), "{unknown:?}");

    let absent = send_json(&server, "/kairos.identity.v1.IdentityService/NoSuchMethod", "{}").await;
    assert_eq!((absent.status, absent.error().code()), (StatusCode::NOT_IMPLEMENTED, Code::Unimplemented));
    assert!(absent.error().message().contains("there is no such method"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_logins_say_when_to_retry() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_CLIENT_REGISTRATIONS_MAX", "1")
        .start()
        .await;
    let register = async |name: &str| {
        let body = serde_json::json!({"username": name, "email": address(name), "password": PASSWORD});
        let path = "/kairos.identity.v1.IdentityService/Register";
        send_json_with(&server, path, &[("kairos-client-ip", "192.0.2.1")], body.to_string()).await
    };
    assert_eq!(register("ada").await.status, StatusCode::OK);
    let refused = register("bob").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_refused(&refused.error(), Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_of_connect_is_enforced() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", SLOW_HASH_COST)
        .start()
        .await;
    let body = serde_json::json!({"email": address("unknown"), "password": PASSWORD}).to_string();
    let late = send_json_with(&server, LOGIN, &[("connect-timeout-ms", "50")], &body).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert_refused(&late.error(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let malformed = send_json_with(&server, LOGIN, &[("connect-timeout-ms", "50ms")], &body).await;
    assert_refused(&malformed.error(), Code::InvalidArgument, "INVALID_FIELDS");
}

/// A page whose name leads to this port (DNS rebinding) may read the answers to its requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_page_in_a_browser_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let body = serde_json::json!({ "email": "eve@example.com", "username": "eve", "password": PASSWORD });
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for content_type in
            ["application/json", "application/proto", "application/grpc-web+proto", "application/grpc"]
        {
            let request =
                post(&server, REGISTER, Some(content_type), &[("origin", "http://evil.example:50051")]);
            let refused = send(server.address(), version, request, body.to_string().as_bytes()).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
            assert!(refused.body.starts_with(b"This port answers no browser"), "{refused:?}");
        }
    }
    // One line for all, as for other requests that any client can send.
    let log = server.logged("IdentityService/Register HTTP 403").await;
    assert_eq!(log.matches("Register HTTP 403").count(), 1, "{log}");
    let found = server.client().await.find_user(by_email("eve@example.com")).await.unwrap_err();
    assert_refused(&found, Code::NotFound, "USER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_call_is_answered_with_what_the_port_serves() {
    let server = TestServer::start(Engine::Sqlite).await;
    let url = |path: &str| format!("http://{}{path}", server.address());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer =
            async |request: http::request::Builder| send(server.address(), version, request, b"").await;
        for (request, status) in [
            (Request::get(url("/")), StatusCode::NOT_FOUND),
            (Request::get(url("/favicon.ico")), StatusCode::NOT_FOUND),
            (post(&server, "/", Some("application/json"), &[]), StatusCode::NOT_FOUND),
            (Request::get(url(RESOLVE)), StatusCode::METHOD_NOT_ALLOWED),
            (
                Request::options(url(RESOLVE)).header("origin", "https://a.example"),
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            (
                Request::put(url(RESOLVE)).header("content-type", "application/json"),
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            (post(&server, RESOLVE, None, &[]), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (post(&server, RESOLVE, Some("text/json"), &[]), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (
                post(&server, RESOLVE, Some("application/connect+json"), &[]),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            (
                post(&server, "/grpc.health.v1.Health/Watch", Some("application/json"), &[]),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
        ] {
            let what = format!("{request:?}");
            let answer = answer(request).await;
            assert_eq!(answer.status, status, "{what}");
            assert!(
                answer.body.starts_with(b"This port serves the API of kairos-identity."),
                "{what}: {answer:?}"
            );
            let cors = answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
            assert!(!cors, "{what}: {answer:?}");
        }
    }
    let grpc = post(&server, RESOLVE, Some("application/grpc"), &[]);
    let grpc = send(server.address(), Version::HTTP_11, grpc, &[0; 5]).await;
    assert_eq!(grpc.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "gRPC needs HTTP/2");
    server.logged("HTTP 415").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_connect_ends_with_its_status() {
    let server = TestServer::start(Engine::Sqlite).await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let message = list.encode_to_vec();
    let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = post(&server, reflection, Some("application/connect+proto"), &[]);
        let answer = send(server.address(), version, request, &frame).await;
        assert_eq!(answer.headers["content-type"], "application/connect+proto");
        assert!(answer.body.starts_with(&[0]) && answer.body.ends_with(b"\x02\0\0\0\x02{}"), "{answer:?}");

        let gzip = [("connect-content-encoding", "gzip")];
        let request = post(&server, "/grpc.health.v1.Health/Watch", Some("application/connect+proto"), &gzip);
        let answer = send(server.address(), version, request, &[0; 5]).await;
        assert_eq!(answer.status, StatusCode::OK);
        let end: serde_json::Value = serde_json::from_slice(&answer.body[5..]).unwrap();
        assert_eq!((answer.body[0], &end["error"]["code"]), (2, &"unimplemented".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_checked_with_json() {
    let server = TestServer::start(Engine::Sqlite).await;
    let answer = send_json(&server, "/grpc.health.v1.Health/Check", "{}").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, serde_json::json!({"status": "SERVING"})));
}
