//! The violations of fields as programs read them: each reason of `violation.proto` is reached by a call,
//! with the parameters that its comment lists.

use std::collections::{BTreeMap, BTreeSet};

use http::Version;
use kairos_identity::proto::{
    FieldViolation, InvalidFields, ViolationReason as R, account_service_client::AccountServiceClient,
    identity_service_client::IdentityServiceClient,
};
use prost::Message;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::client::{post, send, send_json_with};
use crate::{
    error_reference::violation_reasons,
    support::{
        engine::Engine,
        errors::assert_refused,
        people::{PASSWORD, address, registration},
        server::TestServer,
        sessions::{acting, log_in},
    },
};

const REGISTER: &str = "IdentityService/Register";
const FIND: &str = "IdentityService/FindUser";
const LOGIN: &str = "IdentityService/Login";
const RESOLVE: &str = "IdentityService/ResolveToken";
const USERS: &str = "AdminService/ListUsers";
const EVENTS: &str = "AdminService/ListAuditEvents";
const REQUEST_ID: &str = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";

/// A call that is refused: the method, its JSON, and more headers.
struct Call(&'static str, String, Vec<(&'static str, String)>);

/// Returns the violations in a status for programs.
fn for_programs(status: &Status) -> InvalidFields {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
    let found: Vec<_> = details.iter().filter(|detail| detail.type_url.ends_with(".InvalidFields")).collect();
    assert_eq!(found.len(), 1, "{status:?}");
    assert_eq!(found[0].type_url, "type.googleapis.com/kairos.identity.v1.InvalidFields");
    InvalidFields::decode(&*found[0].value).unwrap()
}

/// Returns the violations of an error, after a check that both details list the same ones.
fn violations_of(status: &Status) -> Vec<FieldViolation> {
    assert_refused(status, Code::InvalidArgument, "INVALID_FIELDS");
    let listed = status.get_details_bad_request().unwrap().field_violations;
    let violations = for_programs(status).violations;
    let names = |violation: &FieldViolation| {
        let reason = violation.reason().as_str_name().strip_prefix("VIOLATION_REASON_").unwrap().to_owned();
        (violation.field.clone(), reason)
    };
    let listed: Vec<_> = listed
        .into_iter()
        .map(|violation| {
            assert!(!violation.description.is_empty(), "{violation:?}");
            (violation.field, violation.reason)
        })
        .collect();
    assert_eq!(listed, violations.iter().map(names).collect::<Vec<_>>());
    violations
}

fn email(text: &str) -> Call {
    Call(FIND, json!({"email": text}).to_string(), vec![])
}

fn username(text: &str) -> Call {
    Call(FIND, json!({"username": text}).to_string(), vec![])
}

fn password(text: &str) -> Call {
    let request = json!({"username": "grace", "email": address("grace"), "password": text});
    Call(REGISTER, request.to_string(), vec![])
}

fn call(method: &'static str, request: &serde_json::Value) -> Call {
    Call(method, request.to_string(), vec![])
}

fn with_header(name: &'static str, value: &str) -> Call {
    Call(RESOLVE, json!({"authToken": REQUEST_ID}).to_string(), vec![(name, value.to_owned())])
}

/// Returns the calls that break rules of emails and usernames, each with the reason.
fn calls_with_names() -> Vec<(R, Call)> {
    vec![
        (R::EmailEmpty, email("")),
        (
            R::EmailTooLong,
            email(&format!("{}@{}com", "a".repeat(64), format!("{}.", "b".repeat(63)).repeat(3))),
        ),
        (R::EmailLocalPartTooLong, email(&format!("{}@example.com", "a".repeat(65)))),
        (R::EmailWhitespace, email("ada lovelace@example.com")),
        (R::EmailMalformed, email("not-an-email")),
        (R::EmailMalformed, email("ada..lovelace@example.com")),
        (R::EmailQuoted, email("\"ada\"@example.com")),
        (R::EmailEncodedWord, email("=?a?=@example.com")),
        (R::EmailCharacters, email("ad\u{200b}a@example.com")),
        (R::EmailDomainIsAddress, email("ada@[192.0.2.1]")),
        (R::EmailDomainIncomplete, email("ada@localhost")),
        (R::EmailDomainInvalid, email("ada@exam_ple.com")),
        (R::UsernameEmpty, username("  ")),
        (R::UsernameTooLong, username(&"a".repeat(151))),
        (R::UsernameAt, username("ada@lovelace")),
        (R::UsernameInvisibleCharacters, username("ad\u{200b}a")),
        (R::UsernameCharacters, username("ada\u{2603}")),
        (R::UsernameMixedScripts, username("\u{430}da")),
        (R::UsernameStackedMarks, username(&format!("a{}b", "\u{301}".repeat(6)))),
        (
            R::UsernameLink,
            call(
                REGISTER,
                &json!({"username": "www.example.com", "email": "a@example.com", "password": PASSWORD}),
            ),
        ),
    ]
}

/// Returns the calls that break rules of passwords.
fn calls_with_passwords() -> Vec<(R, Call)> {
    vec![
        (R::PasswordEmpty, password("")),
        (R::PasswordTooShort, password("short")),
        (R::PasswordTooLong, password(&"x".repeat(1_025))),
        (R::PasswordTooLong, call(LOGIN, &json!({"email": "a@example.com", "password": "x".repeat(4_097)}))),
        (R::PasswordCommon, password("password123")),
        (R::PasswordKeyboardPattern, password("zxcvbnm,./")),
        (R::PasswordRepeats, password("kkkkkkkkkk")),
        (R::PasswordSequence, password("bcdefghijk")),
        (R::PasswordDate, password("13.07.1983")),
        (R::PasswordWord, password("municipality")),
        (R::PasswordName, password("kowalczyk")),
        (R::PasswordGuessable, password("kairos123")),
    ]
}

/// Returns the calls that break rules of requests and of JSON.
fn calls_with_requests() -> Vec<(R, Call)> {
    let raw = |json: &str| Call(LOGIN, json.to_owned(), vec![]);
    vec![
        (R::Required, call("IdentityService/VerifyEmail", &json!({}))),
        (R::Required, call(FIND, &json!({}))),
        (R::AuthTokenMalformed, call(RESOLVE, &json!({"authToken": "x"}))),
        (R::AuthTokensCount, call("IdentityService/ResolveTokens", &json!({}))),
        (
            R::RequestIdMalformed,
            call(
                REGISTER,
                &json!({"username": "b", "email": "b@example.com", "password": PASSWORD, "requestId": "x"}),
            ),
        ),
        (
            R::RequestIdReused,
            call(
                REGISTER,
                &json!({"username": "b", "email": "b@example.com", "password": PASSWORD, "requestId": REQUEST_ID}),
            ),
        ),
        (R::PageSizeOutOfRange, call(USERS, &json!({"pageSize": 1_001}))),
        (R::PageTokenInvalid, call(USERS, &json!({"pageToken": "x"}))),
        (R::TimestampOutOfRange, Call(USERS, String::new(), vec![])),
        (R::MessageMalformed, Call(LOGIN, String::new(), vec![])),
        (R::FilterTextTooLong, call(USERS, &json!({"text": "x".repeat(255)}))),
        (R::FilterTextControlCharacters, call(USERS, &json!({"text": "a\u{1}"}))),
        (R::AuditKindUnknown, call(EVENTS, &json!({"kinds": ["nonsense"]}))),
        (R::CallerNameInvalid, call(EVENTS, &json!({"caller": "x".repeat(65)}))),
        (R::ClientIpMalformed, with_header("kairos-client-ip", "x")),
        (
            R::ClientIpRepeated,
            Call(
                RESOLVE,
                "{}".to_owned(),
                vec![
                    ("kairos-client-ip", "192.0.2.1".to_owned()),
                    ("kairos-client-ip", "192.0.2.2".to_owned()),
                ],
            ),
        ),
        (R::TimeoutMalformed, with_header("connect-timeout-ms", "x")),
        (R::ConnectVersionUnsupported, with_header("connect-protocol-version", "2")),
        (R::JsonMalformed, raw("{\"email\":")),
        (R::JsonMalformed, raw("{'email': 1}")),
        (R::JsonNameRepeated, raw("{\"email\": \"a\", \"email\": \"b\"}")),
        (R::JsonNotObject, raw("[]")),
        (R::JsonFieldUnknown, raw("{\"nonsense\": 1}")),
        (R::JsonFieldInBothForms, call(RESOLVE, &json!({"authToken": "x", "auth_token": "y"}))),
        (R::JsonOneofRepeated, call(FIND, &json!({"email": "a", "username": "b"}))),
        (R::JsonValueInvalid, raw("{\"email\": 1}")),
    ]
}

/// Returns the calls for a user, who has this access token.
fn calls_for_a_user(email: &str, access_token: &str) -> Vec<(R, Call)> {
    let acting = |method, request: serde_json::Value| {
        Call(method, request.to_string(), vec![("authorization", format!("Bearer {access_token}"))])
    };
    let mask = json!({"username": "ada", "updateMask": "email"});
    vec![
        (
            R::EmailUnchanged,
            acting(
                "AccountService/RequestEmailChange",
                json!({"currentPassword": PASSWORD, "newEmail": email}),
            ),
        ),
        (R::UpdateMaskUnsupported, acting("AccountService/UpdateAccount", mask)),
        (R::SessionIdMalformed, acting("SessionService/RevokeSession", json!({"sessionId": "x"}))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_of_a_violation_is_reached_with_its_parameters() {
    let server = TestServer::start(Engine::Sqlite).await;
    server.member("ada").await;
    let tokens = log_in(&server, "ada").await;
    let mut first = registration("eve");
    first.request_id = REQUEST_ID.to_owned();
    server.client().await.register(first).await.unwrap();
    let documented: BTreeMap<String, BTreeSet<String>> = violation_reasons()
        .into_iter()
        .map(|reason| (reason.name.clone(), reason.parameters().into_iter().collect()))
        .collect();
    let calls = calls_with_names()
        .into_iter()
        .chain(calls_with_passwords())
        .chain(calls_with_requests())
        .chain(calls_for_a_user(&address("ada"), &tokens.access_token));

    let mut reached = BTreeSet::new();
    for (reason, Call(method, json, headers)) in calls {
        let status = if reason == R::TimestampOutOfRange {
            // The JSON of a timestamp has no other times, so only protobuf can send one.
            time_out_of_range(&server).await
        } else if reason == R::MessageMalformed {
            let path = format!("/kairos.identity.v1.{method}");
            let request = post(&server, &path, Some("application/proto"), &[]);
            send(server.address(), Version::HTTP_11, request, b"\xff").await.error()
        } else {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let path = format!("/kairos.identity.v1.{method}");
            send_json_with(&server, &path, &headers, &json).await.error()
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{reason:?}: {json} is accepted");
        let violations = violations_of(&status);
        assert_eq!(violations.len(), 1, "{json}: {violations:?}");
        assert_eq!(violations[0].reason(), reason, "{json}: {status:?}");
        let name = reason.as_str_name().strip_prefix("VIOLATION_REASON_").unwrap();
        let parameters: BTreeSet<String> = violations[0].parameters.keys().cloned().collect();
        assert_eq!(parameters, documented[name], "{name}");
        reached.insert(name.to_owned());
    }
    let missing: Vec<_> = documented.keys().filter(|name| !reached.contains(*name)).collect();
    assert!(missing.is_empty(), "no call reaches {missing:?}");
}

/// Lists users since a time that does not exist.
async fn time_out_of_range(server: &TestServer) -> Status {
    use kairos_identity::proto::{ListUsersRequest, admin_service_client::AdminServiceClient};
    let created_since = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let request = ListUsersRequest { created_since, ..ListUsersRequest::default() };
    AdminServiceClient::new(server.channel().await).list_users(request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violation_has_the_numbers_of_its_rule_over_grpc_and_connect() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_PASSWORD_LENGTH_MIN", "12")
        .start()
        .await;
    let request = kairos_identity::proto::RegisterRequest {
        username: "a".repeat(151),
        password: "ten-chars!".to_owned(),
        ..registration("ada")
    };
    let mut client = IdentityServiceClient::new(server.channel().await);
    let grpc = client.register(request.clone()).await.unwrap_err();
    let json = json!({"username": request.username, "email": request.email, "password": request.password});
    let path = "/kairos.identity.v1.IdentityService/Register";
    let answer = send_json_with(&server, path, &[], json.to_string()).await;

    let violations = violations_of(&grpc);
    assert_eq!(violations, violations_of(&answer.error()));
    let found: Vec<_> = violations
        .iter()
        .map(|violation| (violation.field.as_str(), violation.reason(), violation.parameters.clone()))
        .collect();
    let parameters = |name: &str, number| BTreeMap::from([(name.to_owned(), number)]);
    assert_eq!(
        found,
        [
            ("username", R::UsernameTooLong, parameters("max_length", 150)),
            ("password", R::PasswordTooShort, parameters("min_length", 12)),
        ]
    );
    // As JSON, a client without generated code reads them too.
    let details = answer.json()["details"].clone();
    let detail = details
        .as_array()
        .unwrap()
        .iter()
        .find(|detail| detail["type"] == "kairos.identity.v1.InvalidFields");
    let violation = &detail.unwrap()["debug"]["violations"][1];
    assert_eq!(
        *violation,
        json!({
            "field": "password",
            "reason": "VIOLATION_REASON_PASSWORD_TOO_SHORT",
            "parameters": {"min_length": 12},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guessable_new_password_has_its_reason_at_each_method() {
    let server = TestServer::start(Engine::Sqlite).await;
    server.member("ada").await;
    let tokens = log_in(&server, "ada").await;
    let request = kairos_identity::proto::ChangePasswordRequest {
        current_password: PASSWORD.to_owned(),
        new_password: "password123".to_owned(),
    };
    let mut accounts = AccountServiceClient::new(server.channel().await);
    let refusal = accounts.change_password(acting(&tokens, request)).await.unwrap_err();
    let violations = violations_of(&refusal);
    assert_eq!((violations[0].field.as_str(), violations[0].reason()), ("new_password", R::PasswordCommon));
}
