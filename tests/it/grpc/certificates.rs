//! Callers that authenticate with a client certificate, and server certificates that are replaced at run
//! time.

use std::{fs, time::Duration};

use kairos_identity::{callers::ServiceToken, proto::identity_service_client::IdentityServiceClient};
use tonic::{
    Code, Request, Status,
    transport::{Certificate as Root, Channel, ClientTlsConfig, Endpoint, Error, Identity},
};

use crate::support::{
    engine::Engine,
    errors::assert_refused,
    people::by_email,
    private_file,
    server::TestServer,
    sessions::with_bearer,
    tls::{Authority, Certificate},
    wait::until,
};

/// Longer than the interval (2 s) at which the service checks its files.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

const CALLERS: &str = "[bff]\ncertificates = [\"uri:spiffe://kairos/bff\"]\nmethods = [\"*\"]\nuser-fields = [\"*\"]\n\
                       [agent]\ncertificates = [\"cn:agent\"]\nmethods = [\"IdentityService/ResolveToken\"]\nuser-fields = []\n";

/// Connects with `server_root` as the trusted root and `identity` as the client certificate.
async fn connect(
    server: &TestServer,
    server_root: &[u8],
    identity: Option<Identity>,
) -> Result<Channel, Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Root::from_pem(server_root)).domain_name("localhost");
    let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    Endpoint::from_shared(format!("https://{}", server.address()))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
}

/// Calls `FindUser` with an unknown email and returns the error: `USER_NOT_FOUND` if the caller may call it.
async fn refusal(channel: Channel, token: Option<&ServiceToken>) -> Status {
    let mut request = Request::new(by_email("unknown@example.com"));
    if let Some(token) = token {
        request = with_bearer(token.expose(), request);
    }
    IdentityServiceClient::new(channel).find_user(request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_identifies_a_caller_by_its_name() {
    let (own, authority, stranger) = (Certificate::localhost(), Authority::new(), Authority::new());
    let token = ServiceToken::from_random([7; 32]);
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    let script =
        format!("[script]\ntoken-hashes = [\"{}\"]\nmethods = [\"*\"]\nuser-fields = []\n", token.hash());
    private_file::write(&callers, format!("{CALLERS}{script}"));
    let (certificate, key, ca) = (own.certificate(), own.key(), authority.certificate());
    let server = TestServer::builder(Engine::Sqlite)
        .with_args(&["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
        .with_args(&["--tls-client-ca", ca.to_str().unwrap(), "--callers", callers.to_str().unwrap()])
        .start()
        .await;
    let root = fs::read(own.certificate()).unwrap();
    let bff = || authority.issue_client_certificate("unlisted", "spiffe://kairos/bff");

    let listed = connect(&server, &root, Some(bff())).await.unwrap();
    assert_refused(&refusal(listed, None).await, Code::NotFound, "USER_NOT_FOUND");
    let agent = connect(&server, &root, Some(authority.issue_client_certificate("agent", ""))).await.unwrap();
    assert_refused(&refusal(agent.clone(), None).await, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
    // A service token takes precedence over the client certificate.
    assert_refused(&refusal(agent, Some(&token)).await, Code::NotFound, "USER_NOT_FOUND");

    for identity in [None, Some(authority.issue_client_certificate("bff", "spiffe://kairos/other"))] {
        let unlisted = connect(&server, &root, identity).await.unwrap();
        assert_refused(&refusal(unlisted.clone(), None).await, Code::Unauthenticated, "CALLER_UNKNOWN");
        assert_refused(&refusal(unlisted, Some(&token)).await, Code::NotFound, "USER_NOT_FOUND");
    }
    let other = authority.issue_client_certificate("bff", "spiffe://kairos/other");
    let other = refusal(connect(&server, &root, Some(other)).await.unwrap(), None).await;
    assert!(other.message().contains("(uri:spiffe://kairos/other, cn:bff)"), "{other:?}");
    // A certificate of an untrusted authority is rejected in the handshake, whatever name it has.
    let forged =
        connect(&server, &root, Some(stranger.issue_client_certificate("agent", "spiffe://kairos/bff")))
            .await;
    let is_refused = match forged {
        Err(_) => true,
        // In TLS 1.3 the client learns of the rejection after its side of the handshake has finished.
        Ok(channel) => refusal(channel, Some(&token)).await.code() != Code::NotFound,
    };
    assert!(is_refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_certificate_is_replaced_without_closing_connections() {
    let (old, new) = (Certificate::localhost(), Certificate::localhost());
    let (certificate, key) = (old.certificate(), old.key());
    let old_root = fs::read(&certificate).unwrap();
    let server = TestServer::builder(Engine::Sqlite)
        .with_args(&["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
        .start()
        .await;
    let open = connect(&server, &old_root, None).await.unwrap();

    // A key that does not belong to the certificate is not loaded.
    fs::copy(new.key(), &key).unwrap();
    server.logged("Could not reload the certificates").await;
    connect(&server, &old_root, None).await.unwrap();

    fs::copy(new.certificate(), &certificate).unwrap();
    let new_root = fs::read(new.certificate()).unwrap();
    until("the new certificate is served", RELOAD_LIMIT, async || {
        connect(&server, &new_root, None).await.ok()
    })
    .await;
    assert!(connect(&server, &old_root, None).await.is_err());
    assert_refused(&refusal(open, None).await, Code::NotFound, "USER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_callers_with_certificates_without_a_client_ca() {
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    private_file::write(&callers, CALLERS);
    let server = TestServer::start(Engine::Sqlite).await;
    let output = server
        .command(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--insecure-low-cost",
            "--callers",
            callers.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("server.tls-client-ca is not set"), "{stderr}");
}
