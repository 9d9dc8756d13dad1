//! Answers that the peer does not read: they do not stay in memory, and do not delay a stop.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::frame;
use crate::support::{
    engine::Engine,
    server::{Builder, TestServer},
};

/// The limit of calls in flight of a peer.
const CALLS_MAX: usize = 64;

/// The calls of each connection, fewer than a connection may have at a time.
const CALLS: u32 = 200;

const CONNECTIONS: usize = 4;

/// Calls of each protocol whose refusal has a body.
const REFUSED: [(&str, &str); 4] = [
    ("/kairos.identity.v1.IdentityService/Login", "application/json"),
    ("/kairos.identity.v1.IdentityService/Login", "application/proto"),
    ("/kairos.identity.v1.IdentityService/Login", "text/plain"),
    ("/grpc.health.v1.Health/Watch", "application/connect+proto"),
];

/// The identifier of the setting `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// Opens a connection on which no body of a response may be sent.
async fn without_window(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let settings = [&INITIAL_WINDOW_SIZE[..], &0_u32.to_be_bytes()].concat();
    let preface = [frame::preface(), frame::bytes(frame::SETTINGS, 0, 0, &settings)].concat();
    socket.write_all(&preface).await.unwrap();
    socket
}

/// Returns a call that is refused: its message is malformed or has a part only.
fn refused_call(path: &str, content_type: &str, number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    let headers =
        frame::bytes(frame::HEADERS, frame::END_HEADERS, stream, &frame::headers(path, content_type));
    [headers, frame::bytes(frame::DATA, frame::END_STREAM, stream, &[0, 0])].concat()
}

/// Reads frames until none has arrived for a second. Returns the number of streams that the service ended.
async fn ended_streams(socket: &mut TcpStream) -> usize {
    let mut received = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(1), socket.read_buf(&mut received)).await {}
    let (mut rest, mut ended) = (received.as_slice(), 0);
    while let Some(([l1, l2, l3, kind, flags, ..], _)) = rest.split_first_chunk::<9>() {
        let is_last = matches!(*kind, frame::HEADERS | frame::DATA) && flags & frame::END_STREAM != 0;
        ended += usize::from(is_last);
        rest = &rest[9 + u32::from_be_bytes([0, *l1, *l2, *l3]) as usize..];
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_are_not_read_are_few() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_CALLS_PER_PEER_MAX", &CALLS_MAX.to_string())
        .start()
        .await;
    for (path, content_type) in REFUSED {
        let mut sockets = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut socket = without_window(server.address()).await;
            for number in 0..CALLS {
                socket.write_all(&refused_call(path, content_type, number)).await.unwrap();
            }
            sockets.push(socket);
        }
        let mut ended = 0;
        for socket in &mut sockets {
            ended += ended_streams(socket).await;
        }
        let all = CONNECTIONS * CALLS as usize;
        assert!(ended >= all - CALLS_MAX, "{path} {content_type}: {ended} of {all}");
        // Otherwise the test would have tried nothing.
        assert!(ended < all, "{path} {content_type}: each call was ended");
    }
}

/// A service with a drain deadline of 10 minutes, which a stop must not need.
fn with_long_drain() -> Builder {
    TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE", "10m")
        // Peers that do not answer a PING are disconnected too.
        .with_env("KAIROS_IDENTITY_SERVER_KEEPALIVE_INTERVAL", "5m")
}

/// Sends requests over HTTP/1.1 one after the other, whose answers fill the buffers of the connection.
async fn flood_over_http1(address: SocketAddr, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let requests = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").repeat(100);
    let flood = async { while socket.write_all(requests.as_bytes()).await.is_ok() {} };
    let _ = timeout(Duration::from_secs(3), flood).await;
    socket
}

/// Calls on each port and over each protocol without reading an answer. Returns the connections.
async fn unread_answers(server: &TestServer) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for (path, content_type) in REFUSED {
        let mut socket = without_window(server.address()).await;
        socket.write_all(&refused_call(path, content_type, 0)).await.unwrap();
        held.push(socket);
    }
    held.push(flood_over_http1(server.http_address(), "/register").await);
    held.push(flood_over_http1(server.address(), "/").await);
    held
}

/// Stops the service and asserts that no connection was aborted at the drain deadline.
async fn assert_stops_in_time(server: &mut TestServer) {
    server.terminate();
    let status = server.wait().await;
    let log = server.log();
    assert!(status.success() && log.contains("All connections closed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_do_not_delay_the_stop() {
    let mut server = with_long_drain().start().await;
    let held = unread_answers(&server).await;
    assert_stops_in_time(&mut server).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_on_connections_at_their_maximum_age_do_not_delay_the_stop() {
    let mut server = with_long_drain()
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE", "1s")
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE_GRACE", "10m")
        .start()
        .await;
    let held = unread_answers(&server).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_stops_in_time(&mut server).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_after_too_many_resets_does_not_delay_the_stop() {
    let mut server = with_long_drain()
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE_GRACE", "10m")
        .with_env("KAIROS_IDENTITY_SERVER_RESETS_PER_SECOND_MAX", "1")
        .with_env("KAIROS_IDENTITY_SERVER_STREAMS_PER_CONNECTION_MAX", "20")
        .start()
        .await;
    let (path, content_type) = REFUSED[0];
    let mut socket = without_window(server.address()).await;
    socket.write_all(&refused_call(path, content_type, 0)).await.unwrap();
    for number in 1..30 {
        let reset = frame::bytes(frame::RST_STREAM, 0, 2 * number + 1, &frame::CANCEL.to_be_bytes());
        let call = [refused_call(path, content_type, number), reset].concat();
        socket.write_all(&call).await.unwrap();
    }
    let (mut received, go_away) = (Vec::new(), [0, 0, 8, frame::GOAWAY]);
    while !received.windows(go_away.len()).any(|bytes| bytes == go_away) {
        let read = timeout(Duration::from_secs(10), socket.read_buf(&mut received)).await;
        assert!(matches!(read, Ok(Ok(1..))), "the service sends GOAWAY");
    }
    assert_stops_in_time(&mut server).await;
    drop(socket);
}

/// The second of the two times that a call over HTTP/1.1 has at the maximum age of its connection.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_long_after_the_maximum_age_do_not_delay_the_stop() {
    let mut server = with_long_drain()
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE", "1s")
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE_GRACE", "10s")
        .with_env("KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE", "7s")
        .start()
        .await;
    let held = flood_over_http1(server.address(), "/").await;
    tokio::time::sleep(Duration::from_millis(9_200)).await;
    assert_stops_in_time(&mut server).await;
    drop(held);
}
