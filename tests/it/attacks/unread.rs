//! Answers that the peer does not read: they do not stay in memory, and do not delay a stop.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::frame;
use crate::support::{engine::Engine, server::TestServer};

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

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_do_not_delay_the_stop() {
    let mut server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE", "10m")
        // Peers that do not answer a PING are disconnected too.
        .with_env("KAIROS_IDENTITY_SERVER_KEEPALIVE_INTERVAL", "5m")
        .start()
        .await;
    let mut held = Vec::new();
    for (path, content_type) in REFUSED {
        let mut socket = without_window(server.address()).await;
        socket.write_all(&refused_call(path, content_type, 0)).await.unwrap();
        held.push(socket);
    }
    // Requests of HTTP/1.1 one after the other, whose answers fill the buffers of the connection.
    for (address, request) in [
        (server.http_address(), "GET /register HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (server.address(), "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let flood = async { while socket.write_all(request.repeat(100).as_bytes()).await.is_ok() {} };
        let _ = timeout(Duration::from_secs(3), flood).await;
        held.push(socket);
    }
    server.terminate();

    let status = server.wait().await;

    let log = server.log();
    assert!(status.success() && log.contains("All connections closed"), "{log}");
    drop(held);
}
