//! What the log says of an SMTP server to which no connection is possible.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use crate::support::{
    people::registration,
    smtp::{SmtpServer, mailing_to},
    tls::Certificate,
};

/// Registers a user while mails go to `url`, and returns the log after the first failed attempt. The service
/// trusts `trusted`.
async fn log_of_failure(url: &str, trusted: Option<&Certificate>) -> String {
    let mut builder = mailing_to(url);
    if let Some(trusted) = trusted {
        builder = builder.with_env("SSL_CERT_FILE", trusted.certificate().to_str().unwrap());
    }
    let server = builder.start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail delivery failed; retrying").await
}

/// Starts an SMTP server that greets so and offers no extension. Returns its port.
fn server_without_extensions(greeting: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let commands = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = stream.write_all(greeting);
            for command in commands.map_while(Result::ok) {
                let answer = if command.starts_with("EHLO") { "250 mail.example" } else { "500 unknown" };
                let _ = write!(stream, "{answer}\r\n");
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connection_to_the_smtp_server_says_what_to_correct() {
    let (plain, bare) = (SmtpServer::start(), server_without_extensions(b"220 mail.example\r\n"));
    let http = server_without_extensions(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let latin_1 = server_without_extensions(b"220 bo\xeete.example\r\n");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (expired, other) = (Certificate::expired(), Certificate::with_names(&["mail.example"], |_| {}));
    let with_expired = SmtpServer::start_with_tls(&expired.certificate(), &expired.key());
    let with_other = SmtpServer::start_with_tls(&other.certificate(), &other.key());
    let cases: &[(String, Option<&Certificate>, &[&str])] = &[
        ("smtp://mail.invalid:25".to_owned(), None, &["the host name mail.invalid cannot be resolved"]),
        (format!("smtp://{closed}"), None, &["no program listens", "mail.url"]),
        (plain.url().replace("smtp:", "smtps:"), None, &["write smtp:// instead of smtps:// in mail.url"]),
        (plain.non_loopback_url(), None, &["offers no STARTTLS", "smtps://", "mail.insecure-plaintext"]),
        (format!("smtp://ada:secret@127.0.0.1:{bare}"), None, &["offers no AUTH", "mail.url"]),
        (
            format!("smtp://127.0.0.1:{latin_1}"),
            None,
            &["the SMTP server 127.0.0.1 answered with text that is not UTF-8"],
        ),
        (format!("smtp://127.0.0.1:{http}"), None, &["is no SMTP server", "mail.url"]),
        (
            with_expired.url(),
            Some(&expired),
            &["the certificate of the SMTP server has expired", "the clock of this machine"],
        ),
        (
            with_other.url(),
            Some(&other),
            &["the certificate of the SMTP server has the names mail.example, and not 127.0.0.1"],
        ),
        (
            with_other.url(),
            Some(&expired),
            &["the certificate of the SMTP server is not issued by an authority that is trusted here"],
        ),
    ];
    for (url, trusted, expected) in cases {
        let log = log_of_failure(url, *trusted).await;
        for words in *expected {
            assert!(log.contains(words), "{url}: {words:?} is missing: {log}");
        }
        for words in [
            "DnsName",
            "IpAddress",
            "os error",
            "invalid peer certificate",
            "internal client error",
            "error Tag",
        ] {
            assert!(!log.contains(words), "{url}: {words:?}: {log}");
        }
    }
}
