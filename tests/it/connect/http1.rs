//! Attacks over HTTP/1.1 on the API port: bodies that never end, slow or pipelined requests, and the memory
//! of unfinished ones.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{LOGIN, RESOLVE, UNKNOWN};
use crate::support::{engine::Engine, http::exchange, server::TestServer};

/// Time within which the service answers or closes a connection, even if the machine is busy.
const LIMIT: Duration = Duration::from_secs(10);

/// Limit of the memory growth of the service because of one peer, in MiB. 300 connections occupy some 18 MiB
/// by themselves in a build without optimization.
const GROWTH_MAX_MIB: u64 = 24;

fn head(path: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: kairos.test\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
}

/// Sends these bytes and then `part` again and again. Returns what the service answers until it closes the
/// connection.
async fn answer_to(address: SocketAddr, begin: &str, part: &[u8], pause: Duration) -> String {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    writer.write_all(begin.as_bytes()).await.unwrap();
    let part = part.to_vec();
    let sending = tokio::spawn(async move {
        while writer.write_all(&part).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, reader.read_to_end(&mut answer)).await.expect("the service closes the connection");
    sending.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn server() -> TestServer {
    TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "500ms")
        .with_env("KAIROS_IDENTITY_SERVER_LATE_BYTES_TIMEOUT", "200ms")
        .with_env("KAIROS_IDENTITY_SERVER_FIRST_BYTE_TIMEOUT", "500ms")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_refused_by_its_length_or_its_time() {
    let server = server().await;
    let chunk = [&b"400\r\n"[..], &[b' '; 0x400], b"\r\n"].concat();
    let long =
        answer_to(server.address(), &head(RESOLVE, "Transfer-Encoding: chunked"), &chunk, Duration::ZERO)
            .await;
    assert!(long.starts_with("HTTP/1.1 400 ") && long.contains("\"code\":\"out_of_range\""), "{long}");
    let announced = head(RESOLVE, "Content-Length: 100000000");
    let long = answer_to(server.address(), &announced, &[b' '; 1_024], Duration::ZERO).await;
    assert!(long.starts_with("HTTP/1.1 400 ") && long.contains("\"code\":\"out_of_range\""), "{long}");

    let pause = Duration::from_millis(50);
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 1000"] {
        let part: &[u8] = if framing.starts_with('T') { b"1\r\n \r\n" } else { b" " };
        let slow = answer_to(server.address(), &head(RESOLVE, framing), part, pause).await;
        assert!(slow.starts_with("HTTP/1.1 504 ") && slow.contains("deadline_exceeded"), "{framing}: {slow}");
    }
    // A head that never ends gets no answer.
    let slow_head =
        answer_to(server.address(), &format!("POST {LOGIN} HTTP/1.1\r\n"), b"X: y\r\n", pause).await;
    assert_eq!(slow_head, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_and_lying_requests_are_answered_one_by_one() {
    let server = server().await;
    let body = format!("{{\"authToken\": \"{UNKNOWN}\"}}");
    let one = format!("{}{body}", head(RESOLVE, &format!("Content-Length: {}", body.len())));
    let last = one.replace("Host:", "Connection: close\r\nHost:");
    let answers = exchange(server.address(), format!("{}{last}", one.repeat(20)).as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 21, "{answers}");
    assert_eq!(answers.matches("USER_NOT_FOUND").count(), 21, "{answers}");

    // The body is shorter than announced, so the request never ends.
    let lying = format!("{}{body}", head(RESOLVE, "Content-Length: 500"));
    let answer = answer_to(server.address(), &lying, b"", Duration::from_mins(1)).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");

    // Servers that disagree about the end of such a request see another second request.
    for framing in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let request = format!("{}0\r\n\r\n{last}", head(RESOLVE, framing));
        let answers = exchange(server.address(), request.as_bytes());
        assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_name_one_host_is_refused_on_both_ports() {
    let server = server().await;
    for (address, path) in [(server.address(), RESOLVE), (server.http_address(), "/livez")] {
        for (host, status) in [
            ("HTTP/1.1\r\nHost: kairos.test\r\n", None),
            ("HTTP/1.0\r\n", None),
            ("HTTP/1.1\r\n", Some("400 Bad Request")),
            ("HTTP/1.1\r\nHost: a\r\nHost: b\r\n", Some("400 Bad Request")),
        ] {
            let request = format!("GET {path} {host}Connection: close\r\n\r\n");
            let answer = exchange(address, request.as_bytes());
            let is_refused = answer.split_once(' ').and_then(|(_, rest)| rest.lines().next()) == status;
            assert_eq!(is_refused, status.is_some(), "{host:?}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_of_one_peer_over_http1_occupy_little_memory() {
    for begin in [
        format!("{}{}", head(RESOLVE, "Content-Length: 64000"), " ".repeat(60_000)),
        format!("{}{}", head(LOGIN, "Content-Length: 4194304"), " ".repeat(60_000)),
        format!("POST {RESOLVE} HTTP/1.1\r\nX: {}", "y".repeat(15_000)),
    ] {
        let server = TestServer::start(Engine::Sqlite).await;
        let before = server.resident_mib();
        let mut held = Vec::new();
        for _ in 0..300 {
            let mut socket = TcpStream::connect(server.address()).await.unwrap();
            let _ = timeout(Duration::from_millis(200), socket.write_all(begin.as_bytes())).await;
            held.push(socket);
        }
        let (ends, mut peak) = (Instant::now() + Duration::from_secs(1), 0);
        while Instant::now() < ends {
            peak = peak.max(server.resident_mib());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{begin:.60}: from {before} to {peak} MiB");
        assert!(peak < before + GROWTH_MAX_MIB, "{begin:.60}: from {before} to {peak} MiB");
        assert!(
            server
                .client()
                .await
                .resolve_token(kairos_identity::proto::ResolveTokenRequest::default())
                .await
                .is_err()
        );
    }
}
