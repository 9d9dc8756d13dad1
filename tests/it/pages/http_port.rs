//! The HTTP port: refused requests, connections, the public keys, and the shutdown.

use std::{io::Write, net::TcpStream};

use super::assert_security_headers;
use crate::support::{
    engine::Engine,
    http::{exchange, get, request},
    server::TestServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_page_method_or_form_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let http = server.http_address();
    for path in [
        "/",
        "/verify/",
        "/kairos.identity.v1.IdentityService/Login",
        "/../verify",
        "/%76erify",
        "/%3Cscript%3E",
    ] {
        let missing = get(http, path);
        assert_eq!(missing.status, 404, "{path}");
        assert!(!missing.body.contains("<script>"), "{}", missing.body);
        assert_security_headers(&missing);
    }
    for (method, path, allow) in [
        ("PUT", "/verify", "GET, HEAD, POST"),
        ("POST", "/.well-known/jwks.json", "GET, HEAD"),
        ("DELETE", "/style.css", "GET, HEAD"),
    ] {
        let refused = request(http, method, path, &[], "");
        assert_eq!((refused.status, refused.header("allow")), (405, allow));
    }
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (headers, body, status) in [
        (&["Content-Type: application/json"][..], "{}".to_owned(), 415),
        (&[], "token=1".to_owned(), 415),
        (&[form], "token=1".to_owned(), 400),
        (&["content-type: Application/X-WWW-form-urlencoded ; charset=utf-8"], "token=1".to_owned(), 400),
        (&[form], format!("token={}", "a".repeat(9_000)), 413),
    ] {
        assert_eq!(request(http, "POST", "/verify", headers, &body).status, status, "{headers:?}");
    }
    let marked = get(http, "/verify?token=%22%3E%3Cscript%3E");
    assert!(marked.status == 400 && !marked.body.contains("<script>"), "{}", marked.body);
    let long = exchange(http, format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).as_bytes());
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_end_is_not_certain_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    for (framing, status) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", "400 Bad Request"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", "400 Bad Request"),
        ("Transfer-Encoding: gzip, chunked", "501 Not Implemented"),
    ] {
        let get = "GET /style.css HTTP/1.1\r\nHost: kairos.test\r\n";
        let requests =
            format!("{get}\r\nPOST /verify HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{get}\r\n");
        let answers = exchange(server.http_address(), requests.as_bytes());
        let statuses: Vec<_> =
            answers.split("HTTP/1.1 ").skip(1).filter_map(|part| part.lines().next()).collect();
        assert_eq!(statuses, ["200 OK", status], "{framing}: {answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contact_for_reports_of_flaws_is_published_if_it_is_set() {
    const PATH: &str = "/.well-known/security.txt";
    let without = TestServer::start(Engine::Sqlite).await;
    assert_eq!(get(without.http_address(), PATH).status, 404);
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_HTTP_SECURITY_CONTACT", "mailto:security@kairos.example")
        .start()
        .await;
    let found = get(server.http_address(), PATH);
    assert_eq!((found.status, found.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert!(
        found.body.starts_with("Contact: mailto:security@kairos.example\r\nExpires: 20"),
        "{}",
        found.body
    );
    assert_eq!(request(server.http_address(), "POST", PATH, &[], "").status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_silent_connection_is_closed() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_HTTP_HEAD_TIMEOUT", "300ms")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "500ms")
        .with_env("KAIROS_IDENTITY_HTTP_CONNECTIONS_MAX", "2")
        .start()
        .await;
    let http = server.http_address();
    let _silent = TcpStream::connect(http).unwrap();
    let mut slow = TcpStream::connect(http).unwrap();
    let head = "POST /verify HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    // The two connections above use up the limit of connections.
    assert_eq!(get(http, "/style.css").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_keys_may_be_cached() {
    let server = TestServer::start(Engine::Sqlite).await;
    let keys = get(server.http_address(), "/.well-known/jwks.json");
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    assert_eq!(keys.header("cache-control"), "public, max-age=300");
    let keys: serde_json::Value = serde_json::from_str(&keys.body).unwrap();
    let key = &keys["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into(), &"sig".into())
    );
    assert!(key.get("d").is_none(), "the private key is not published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_closes_the_port_and_does_not_wait_for_idle_connections() {
    let mut server = TestServer::start(Engine::Sqlite).await;
    let http = server.http_address();
    let _idle = TcpStream::connect(http).unwrap();
    server.terminate();
    assert!(server.wait().await.success());
    assert!(server.log().contains("All connections closed"), "{}", server.log());
    assert!(TcpStream::connect(http).is_err());
}
