//! The story of the documents with curl, over HTTP/1.1, HTTP/2 and TLS.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    engine::Engine,
    mail::verification_token,
    people::{PASSWORD, address},
    server::TestServer,
    tls::Certificate,
};

/// Calls a method with curl. Returns the HTTP status and the JSON.
fn curl(server: &TestServer, options: &[&str], method: &str, body: &Value) -> (String, Value) {
    let scheme = if options.contains(&"--cacert") { "https" } else { "http" };
    let port = server.address().port();
    let url = format!("{scheme}://localhost:{port}/kairos.identity.v1.{method}");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--ipv4",
            "--noproxy",
            "*",
            "-w",
            "\n%{http_version} %{http_code}",
        ])
        .args(options)
        .args(["-H", "content-type: application/json", "-d", &body.to_string(), &url])
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (json, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}")))
}

on_both_engines! {
    async fn curl_registers_verifies_logs_in_and_resolves(engine: Engine) {
        let server = TestServer::start(engine).await;
        for (name, options, version) in [("ada", &["--compressed"][..], "1.1"), ("bob", &["--http2-prior-knowledge"], "2")] {
            let (email, ok) = (address(name), format!("{version} 200"));
            let login = json!({"email": email, "password": PASSWORD});
            let register = json!({"username": name, "email": email, "password": PASSWORD});

            let (status, registered) = curl(&server, options, "IdentityService/Register", &register);
            assert_eq!(status, ok, "{registered}");
            let (status, refused) = curl(&server, options, "IdentityService/Login", &login);
            assert_eq!((status, &refused["code"]), (format!("{version} 403"), &"permission_denied".into()));
            assert_eq!(refused["details"][0]["debug"]["reason"], "EMAIL_NOT_VERIFIED");
            let token = verification_token(&server, &email).await;
            let (status, _) = curl(&server, options, "IdentityService/VerifyEmail", &json!({"token": token}));
            assert_eq!(status, ok);
            let (status, logged_in) = curl(&server, options, "IdentityService/Login", &login);
            assert_eq!(status, ok);
            let access_token = logged_in["tokens"]["accessToken"].as_str().unwrap();
            let auth_token = registered["user"]["authToken"].clone();
            let (status, resolved) = curl(&server, options, "IdentityService/ResolveToken", &json!({"authToken": auth_token}));
            assert_eq!((status, &resolved["user"]["username"]), (ok.clone(), &name.into()));

            let bearer = format!("authorization: Bearer {access_token}");
            let with_token = [options, &["-H", &bearer]].concat();
            let (status, sessions) = curl(&server, &with_token, "SessionService/ListSessions", &json!({}));
            assert_eq!((status, &sessions["sessions"][0]["isCurrent"]), (ok, &true.into()));
        }
        let log = server.log();
        assert!(!log.contains(PASSWORD) && !log.contains("Bearer"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_both_versions_over_tls() {
    let certificate = Certificate::localhost();
    let (cert, key) = (certificate.certificate(), certificate.key());
    let server = TestServer::builder(Engine::Sqlite)
        .with_args(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
        .start()
        .await;
    for (option, version) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let options = ["--cacert", cert.to_str().unwrap(), option];
        let (status, keys) = curl(&server, &options, "SessionService/GetJwks", &json!({}));
        assert_eq!((status.as_str(), &keys["keys"][0]["kty"]), (version, &"OKP".into()), "{option}");
    }
}
