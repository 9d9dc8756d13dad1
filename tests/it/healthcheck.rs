//! `healthcheck`: the certificates that it accepts, and the reasons that it gives.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    private_file,
    program::{error_line, stdout},
    server::TestServer,
    tls::Certificate,
};

/// A certificate as `openssl req -x509` makes it: self-signed, and marked as that of an authority.
fn as_openssl_makes_it(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    private_file::write(folder.path().join("key.pem"), key.serialize_pem());
    folder
}

/// Starts a service with this certificate.
async fn serve_with(certificate: &Path, key: &Path) -> TestServer {
    let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    TestServer::builder(Engine::Sqlite).with_args(&flags).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_of_openssl_is_accepted_if_it_is_named() {
    for names in [&["localhost", "id.example"][..], &[]] {
        let folder = as_openssl_makes_it(names);
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let server = serve_with(&certificate, &key).await;
        let url = format!("https://{}", server.address());
        let check = |flags: &[&str]| {
            server.command(&[&["healthcheck", "--url", &url], flags].concat()).output().unwrap()
        };

        let named = check(&["--tls-ca", certificate.to_str().unwrap()]);
        assert!(named.status.success() && stdout(&named).contains("SERVING"), "{names:?}: {named:?}");
        let other = as_openssl_makes_it(&["localhost"]);
        let other = error_line(1, &check(&["--tls-ca", other.path().join("cert.pem").to_str().unwrap()]));
        assert!(other.contains("invalid peer certificate"), "{other}");
        if !names.is_empty() {
            let flags = ["--tls-ca", certificate.to_str().unwrap(), "--server-name", "other.example"];
            let wrong = error_line(1, &check(&flags));
            assert!(wrong.contains("localhost") && wrong.contains("id.example"), "{wrong}");
            assert!(wrong.contains("--server-name") && !wrong.contains("DnsName"), "{wrong}");
        }
    }
}

/// Returns the address of a program that greets each connection with this text and then closes it.
fn greeter(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let _ = socket.write_all(greeting.as_bytes());
            thread::spawn(move || {
                // Closed later: a client reads the greeting before it notices.
                let _ = socket.read(&mut [0; 100]);
                thread::sleep(Duration::from_millis(100));
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_speaks_another_protocol_is_named_by_its_greeting() {
    let server = TestServer::start(Engine::Sqlite).await;
    for (greeting, shown) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "begins with \"SSH-2.0-"),
        ("220 mail.example ESMTP\r\n", "begins with \"220 mail"),
        ("+OK POP3 ready\r\n", "begins with \"+OK POP3"),
    ] {
        let url = format!("http://{}", greeter(greeting));
        let error = error_line(1, &server.command(&["healthcheck", "--url", &url]).output().unwrap());
        assert!(error.contains("there is no gRPC there") && error.contains(shown), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_port_or_scheme_is_named() {
    let plain = TestServer::start(Engine::Sqlite).await;
    let own = Certificate::localhost();
    let secure = serve_with(&own.certificate(), &own.key()).await;
    let check = |server: &TestServer, url: &str| {
        let trust = own.certificate();
        let flags = ["healthcheck", "--url", url, "--tls-ca", trust.to_str().unwrap()];
        error_line(1, &server.command(&flags).output().unwrap())
    };

    let no_tls = check(&plain, &format!("https://{}", plain.address()));
    assert!(no_tls.contains("this port speaks no TLS: write http://"), "{no_tls}");
    let needs_tls = check(&secure, &format!("http://{}", secure.address()));
    assert!(needs_tls.contains("a service with TLS needs an https URL"), "{needs_tls}");
    for url in [format!("http://{}", plain.http_address()), format!("https://{}", secure.http_address())] {
        let server = if url.starts_with("https") { &secure } else { &plain };
        let http = check(server, &url);
        assert!(http.contains("no gRPC there: is this http.listen?"), "{url}: {http}");
    }
}
