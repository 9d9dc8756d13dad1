//! Requests of Connect that break its rules: each is refused, nearly all with `INVALID_FIELDS`, and none is
//! repeated in an answer or in the log.

use http::{StatusCode, Version};
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    LOGIN, RESOLVE,
    client::{HttpAnswer, post, send, send_json, send_json_with},
};
use crate::support::{
    api::methods,
    audit::{RECORDED_LIMIT, audit},
    callers::{CallersFile, token},
    engine::Engine,
    errors::assert_refused,
    server::TestServer,
    wait::until,
};

/// A text that no answer and no log line may contain.
const SECRET: &str = "hunter2-plum-Voyage";

/// Returns JSON that is malformed, or is no `LoginRequest`.
fn bodies() -> Vec<Vec<u8>> {
    let deep = [b"{\"email\":".repeat(5_000), b"1".to_vec(), b"}".repeat(5_000)].concat();
    let texts = [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("\"{SECRET}\""),
        format!("{{\"password\": \"{SECRET}\""),
        format!("{{\"password\": {{\"{SECRET}\": 1}}}}"),
        format!("{{\"{SECRET}\": \"{SECRET}\"}}"),
        format!("{{\"password\": \"{SECRET}\", \"password\": \"{SECRET}\"}}"),
        format!("{{\"password\": [\"{SECRET}\"]}}"),
        format!("{{\"password\": \"{SECRET}\"}} {SECRET}"),
        "{\"email\": 1e999}".to_owned(),
        "{\"email\": -0}".to_owned(),
        "{\"email\": true}".to_owned(),
        "{\"email\": \"\\ud800\"}".to_owned(),
        "{\"email\": \"\u{1}\"}".to_owned(),
        "\u{feff}{}".to_owned(),
        "{}".repeat(1_000),
        "[".repeat(60_000),
    ];
    let bytes = [b"{\"email\": \"\xff\xfe\"}".to_vec(), b"\xff\xfe{\0}\0".to_vec(), deep];
    texts.into_iter().map(String::into_bytes).chain(bytes).collect()
}

#[track_caller]
fn assert_invalid(answer: &HttpAnswer) {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    let error = answer.error();
    assert_refused(&error, Code::InvalidArgument, "INVALID_FIELDS");
    assert!(!error.get_details_bad_request().unwrap().field_violations.is_empty());
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_is_refused_and_not_repeated() {
    let server = TestServer::start(Engine::Sqlite).await;
    for body in bodies() {
        assert_invalid(&send_json(&server, LOGIN, &body).await);
    }
    let rows = async || {
        let lines = audit(&server, &["--kind", "input_validation_fail"]);
        (lines.iter().map(|line| line.count).sum::<usize>() >= bodies().len()).then_some(lines)
    };
    let rows = until("every refusal is in the trail", RECORDED_LIMIT, rows).await;
    assert!(rows.iter().all(|row| row.resource.as_deref() == Some(LOGIN) && row.outcome == "INVALID_FIELDS"));
    assert!(!server.log().contains(SECRET) && !server.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_refuses_malformed_json_without_a_panic() {
    let server = TestServer::start(Engine::Sqlite).await;
    for path in methods() {
        for body in ["{", "[]", "{\"no_such_field\": 1}"] {
            let answer = send_json(&server, &path, body).await;
            // A method that acts for a user may ask for the access token first.
            if answer.status != StatusCode::UNAUTHORIZED {
                assert_invalid(&answer);
            }
        }
    }
    assert!(!server.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_checked_after_the_caller() {
    let bff = token(1);
    let file = CallersFile::new(&[("bff", &bff, "*", "*")]);
    let server = file.serve(Engine::Sqlite).await;
    let bearer = format!("Bearer {}", bff.expose());
    let headers =
        [("connect-protocol-version", "2"), ("content-encoding", "gzip"), ("connect-timeout-ms", "x")];
    for header in headers {
        let stranger = send_json_with(&server, RESOLVE, &[header], "{").await;
        assert_refused(&stranger.error(), Code::Unauthenticated, "CALLER_UNKNOWN");
        let known = send_json_with(&server, RESOLVE, &[header, ("authorization", &bearer)], "{}").await;
        if header.0 == "content-encoding" {
            let error = known.error();
            assert_eq!((known.status, error.code()), (StatusCode::NOT_IMPLEMENTED, Code::Unimplemented));
            assert!(error.message().contains("identity"), "{error:?}");
        } else {
            assert_invalid(&known);
            let violations = known.error().get_details_bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, header.0);
        }
    }
    let identity = [("authorization", bearer.as_str()), ("content-encoding", "identity")];
    assert_invalid(&send_json_with(&server, RESOLVE, &identity, "{}").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_is_refused_over_each_version() {
    let server = TestServer::start(Engine::Sqlite).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (content_type, body) in [
            ("application/json", format!("{{\"authToken\": \"{}\"}}", "x".repeat(70 * 1024)).into_bytes()),
            ("application/json", " ".repeat(70 * 1024).into_bytes()),
            ("application/proto", [&[0x0a, 0x80, 0x80, 0x04][..], &b"x".repeat(64 * 1024)].concat()),
        ] {
            let answer =
                send(server.address(), version, post(&server, RESOLVE, Some(content_type), &[]), &body).await;
            assert_eq!(answer.error().code(), Code::OutOfRange, "{version:?} {content_type} {answer:?}");
        }
    }
}
