//! Clients that developers use: grpcurl, Python's grpcio, and libraries that verify access tokens.

use std::process::{Command, Output};

use kairos_identity::proto::SessionTokens;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{
    mail::verification_token,
    people::address,
    server::TestServer,
    sessions::log_in,
    tools::{grpcurl, node, node_module, python, python_path, repository},
};

const SERVICE: &str = "kairos.identity.v1.IdentityService";

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn call(server: &TestServer, rpc: &str, message: &str) -> String {
    text_of(&grpcurl(&["-d", message, &server.address().to_string(), &format!("{SERVICE}/{rpc}")]))
}

on_both_engines! {
    async fn the_readme_walkthrough_works_with_grpcurl(engine: Engine) {
        let server = TestServer::start(engine).await;
        let registration = r#"{"username": "ada", "email": "ada@example.com", "password": "plum-Voyage-84-kettle"}"#;
        let login = r#"{"email": "ada@example.com", "password": "plum-Voyage-84-kettle"}"#;

        let registered = call(&server, "Register", registration);
        let (_, rest) = registered.split_once("\"authToken\": \"").unwrap_or_else(|| panic!("{registered}"));
        let auth_token = &rest[..36];
        let early = call(&server, "Login", login);
        let token = verification_token(&server, &address("ada")).await;
        let verified = call(&server, "VerifyEmail", &format!(r#"{{"token": "{token}"}}"#));
        let logged_in = call(&server, "Login", login);
        let resolved = call(&server, "ResolveToken", &format!(r#"{{"auth_token": "{auth_token}"}}"#));

        // grpcurl decodes the error details, since reflection serves their descriptors too.
        assert!(early.contains("\"reason\":\"EMAIL_NOT_VERIFIED\"") && early.contains("identity.kairos"), "{early}");
        for answer in [verified, logged_in, resolved] {
            assert!(answer.contains("\"isVerified\": true") && answer.contains(auth_token), "{answer}");
        }
    }

    async fn the_readme_walkthrough_works_with_grpcio(engine: Engine) {
        let server = TestServer::start(engine).await;
        let (address, mails, root) = (server.address().to_string(), server.mail_folder(), repository());
        let output = python("grpcio_client.py", &[&address, mails.to_str().unwrap(), root.join("proto").to_str().unwrap()]);
        assert!(output.status.success(), "{}", text_of(&output));
        server.logged("set its option grpc.default_authority").await;
    }
}

/// Asserts that the program `verify` accepts an access token and prints its claims, and that it refuses a
/// forged token and values that are not access tokens.
fn assert_verifies_access_tokens(verify: impl Fn(&str) -> Output, auth_token: &str, tokens: &SessionTokens) {
    let verified = verify(&tokens.access_token);
    let claims: serde_json::Value =
        serde_json::from_slice(&verified.stdout).unwrap_or_else(|_| panic!("{}", text_of(&verified)));
    assert_eq!((&claims["sub"], &claims["sid"]), (&auth_token.into(), &tokens.session_id.clone().into()));

    let (message, signature) = tokens.access_token.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", signature.chars().rev().collect::<String>());
    for other in [&forged, &tokens.refresh_token, &tokens.session_id, message] {
        let refused = verify(other);
        assert_eq!(refused.status.code(), Some(1), "{other}: {}", text_of(&refused));
        assert!(text_of(&refused).contains("the token is refused"), "{}", text_of(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_verifies_an_access_token_offline() {
    let server = TestServer::start(crate::support::engine::Engine::Sqlite).await;
    let ada = server.member("ada").await;
    let tokens = log_in(&server, "ada").await;
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("jwks.json");
    let (address, rpc) = (server.address().to_string(), "kairos.identity.v1.SessionService/GetJwks");
    std::fs::write(&jwks, grpcurl(&[&address, rpc]).stdout).unwrap();
    let example = repository().join("examples/verify_access_token.py");
    // The agent needs only the public keys, so the service may be gone.
    drop(server);
    let verify = |token: &str| {
        let program = repository().join(".tools/venv/bin/python");
        std::process::Command::new(program).arg(&example).arg(&jwks).arg(token).output().unwrap()
    };

    assert_verifies_access_tokens(verify, &ada.auth_token, &tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_typescript_verifies_an_access_token_with_keys_from_http() {
    let server = TestServer::start(crate::support::engine::Engine::Sqlite).await;
    let ada = server.member("ada").await;
    let tokens = log_in(&server, "ada").await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(node_module(""), folder.path().join("node_modules")).unwrap();
    let example = repository().join("examples/verify_access_token.mts");
    std::fs::copy(example, folder.path().join("verify_access_token.mts")).unwrap();
    let compiled = std::process::Command::new(node_module(".bin/tsc"))
        .args([
            "--module",
            "nodenext",
            "--target",
            "es2022",
            "--strict",
            "--types",
            "node",
            "verify_access_token.mts",
        ])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", text_of(&compiled));
    let keys = format!("http://{}/.well-known/jwks.json", server.http_address());
    let verify = |token: &str| {
        let mut node = node();
        node.args(["verify_access_token.mjs", &keys, token]).current_dir(&folder).output().unwrap()
    };

    assert_verifies_access_tokens(verify, &ada.auth_token, &tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_and_describes_the_api() {
    let server = TestServer::start(crate::support::engine::Engine::Sqlite).await;
    let address = server.address().to_string();

    let services = text_of(&grpcurl(&[&address, "list"]));
    for service in [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"] {
        assert!(services.contains(service), "{services}");
    }
    let rpcs = text_of(&grpcurl(&[&address, "list", SERVICE]));
    for rpc in [
        "Register",
        "VerifyEmail",
        "ResendVerificationEmail",
        "Login",
        "ResolveToken",
        "ResolveTokens",
        "FindUser",
    ] {
        assert!(rpcs.lines().any(|line| line == format!("{SERVICE}.{rpc}")), "{rpcs}");
    }
    let described = text_of(&grpcurl(&[&address, "describe", &format!("{SERVICE}.Register")]));
    assert!(described.contains("Registers a user and mails a verification link"), "{described}");
    let health = text_of(&grpcurl(&[&address, "grpc.health.v1.Health/Check"]));
    assert!(health.contains("SERVING"), "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_serves_v1_too() {
    let server = TestServer::start(crate::support::engine::Engine::Sqlite).await;
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel().await);

    let answers = client.server_reflection_info(futures_util::stream::once(async { list })).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();

    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    assert!(list.service.iter().any(|service| service.name == SERVICE), "{list:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_can_be_turned_off() {
    let off = ("KAIROS_IDENTITY_SERVER_REFLECTION", "false");
    let server =
        TestServer::builder(crate::support::engine::Engine::Sqlite).with_env(off.0, off.1).start().await;

    let services = grpcurl(&[&server.address().to_string(), "list"]);

    assert!(!services.status.success(), "{}", text_of(&services));
}

#[test]
fn the_disasters_are_listed_with_what_each_breaks() {
    let listed = Command::new(python_path())
        .arg(repository().join("tests/disasters"))
        .args(["--binary", env!("CARGO_BIN_EXE_kairos-identity"), "--list"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", text_of(&listed));
    for name in ["patroni-kill", "kill ", "power", "foreign-fr"] {
        assert!(text_of(&listed).contains(name), "{name}: {}", text_of(&listed));
    }
}
