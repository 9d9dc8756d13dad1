//! TLS connections, and the files with the certificate and the key.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::{
    super::{Alpn, DrainReport, ServerOptions, load_tls},
    TestServer, check, is_closed, options,
};

#[tokio::test(flavor = "multi_thread")]
async fn tls_works_and_a_handshake_has_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let limit = Duration::from_millis(200);
    let server = TestServer::start(
        ServerOptions { tls_handshake_timeout: limit, ..options() },
        Some(load_tls(&certificate, &key, None, Alpn::Http2).unwrap().into()),
    );

    let roots = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(certified.cert.pem()))
        .domain_name("localhost");
    let endpoint =
        Endpoint::from_shared(format!("https://{}", server.address)).unwrap().tls_config(roots).unwrap();
    check(endpoint.connect().await.unwrap()).await.unwrap();

    let mut stalled = server.socket().await;
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    assert!(is_closed(&mut stalled).await);
}

#[test]
fn the_error_names_an_unusable_certificate_or_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let error = || load_tls(&certificate, &key, None, Alpn::Http2).unwrap_err().to_string();
    assert!(error().contains("cert.pem"));

    std::fs::write(&certificate, "not a certificate").unwrap();
    assert!(error().contains("cert.pem: contains no certificate"));

    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    assert!(error().contains("key.pem"));
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(error().contains("key.pem"), "{}", error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_a_stalled_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let server = TestServer::start(
        ServerOptions { drain_deadline: Duration::from_mins(1), ..options() },
        Some(load_tls(&certificate, &key, None, Alpn::Http2).unwrap().into()),
    );
    let mut stalled = server.socket().await;
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let (report, _) = server.stop().await;

    assert_eq!(report, DrainReport { connections_aborted: 0 });
}

#[test]
fn the_error_does_not_contain_a_malformed_key() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    // A secret store may replace line ends with spaces.
    std::fs::write(&key, certified.signing_key.serialize_pem().replace('\n', " ")).unwrap();
    let secret = certified.signing_key.serialize_pem().lines().nth(1).unwrap()[..20].to_owned();

    let error = load_tls(&certificate, &key, None, Alpn::Http2).unwrap_err();

    let bytes = format!("{:?}", secret.as_bytes());
    let bytes = bytes.trim_matches(|c| c == '[' || c == ']');
    let text = format!("{error} {error:?}");
    assert!(!text.contains(&secret) && !text.contains(bytes), "{text}");
}
