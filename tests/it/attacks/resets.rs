//! One connection that many users share, as behind a proxy: what some of them do must not end the calls of
//! the others.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{PATHS, frame};
use crate::support::{engine::Engine, server::TestServer};

/// Time limit of a step that should be fast.
const LIMIT: Duration = Duration::from_secs(10);

/// Longer than the time for which the HTTP/2 library remembers a call that it has reset (1 s).
const FORGOTTEN: Duration = Duration::from_millis(1_300);

/// The error code of a call that breaks a rule of HTTP/2 (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;

/// Number of calls in flight at a time.
const CALLS: u32 = 200;

/// A connection of hand-made frames.
struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
    /// The streams that have ended, with the error code of those that were reset.
    ended: HashMap<u32, Option<u32>>,
    /// The error code of GOAWAY.
    go_away: Option<u32>,
    next_stream: u32,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&frame::preface()).await.unwrap();
        Self { socket, unread: Vec::new(), ended: HashMap::new(), go_away: None, next_stream: 1 }
    }

    fn next_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    async fn send(&mut self, bytes: &[u8]) {
        timeout(LIMIT, self.socket.write_all(bytes)).await.unwrap().expect("the connection is open");
    }

    /// Handles the next frame. Returns false if the service has closed the connection after GOAWAY. Panics if
    /// it closes the connection without.
    async fn receive(&mut self) -> bool {
        let (length, kind, flags, stream) = loop {
            if let Some([l1, l2, l3, kind, flags, stream @ ..]) = self.unread.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, *l1, *l2, *l3]) as usize;
                if self.unread.len() >= 9 + length {
                    break (length, *kind, *flags, u32::from_be_bytes(*stream));
                }
            }
            let read = timeout(LIMIT, self.socket.read_buf(&mut self.unread)).await;
            if !read.expect("a frame arrives in time").is_ok_and(|count| count > 0) {
                assert!(self.go_away.is_some(), "the service closed the connection");
                return false;
            }
        };
        let frame: Vec<u8> = self.unread.drain(..9 + length).collect();
        let payload = &frame[9..];
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            frame::SETTINGS if flags == 0 => {
                self.send(&frame::bytes(frame::SETTINGS, frame::ACK, 0, &[])).await;
            }
            frame::PING if flags == 0 => {
                let payload = payload.to_vec();
                self.send(&frame::bytes(frame::PING, frame::ACK, 0, &payload)).await;
            }
            frame::GOAWAY => self.go_away = Some(code(4)),
            frame::RST_STREAM => {
                self.ended.entry(stream).or_insert(Some(code(0)));
            }
            frame::HEADERS | frame::DATA if flags & frame::END_STREAM != 0 => {
                self.ended.entry(stream).or_insert(None);
            }
            _ => {}
        }
        true
    }

    /// Waits until the call has ended. Returns the error code if it was reset before it was answered.
    async fn end_of(&mut self, stream: u32) -> Option<u32> {
        timeout(LIMIT, async {
            while !self.ended.contains_key(&stream) {
                assert!(self.receive().await, "the connection is open");
            }
        })
        .await
        .expect("the call ends in time");
        self.ended[&stream]
    }

    /// Begins a good call, and sends part of its message: an empty `auth_token`, which the service refuses.
    async fn begin_call(&mut self) -> u32 {
        let stream = self.send_headers(&frame::headers_of_a_call(PATHS[0])).await;
        self.send(&frame::bytes(frame::DATA, 0, stream, &[0, 0])).await;
        stream
    }

    /// Begins a call with this header block.
    async fn send_headers(&mut self, block: &[u8]) -> u32 {
        let stream = self.next_stream();
        self.send(&frame::bytes(frame::HEADERS, frame::END_HEADERS, stream, block)).await;
        stream
    }

    /// Sends the rest of the message of a good call, and asserts that it is answered.
    async fn finish_call(&mut self, stream: u32) {
        self.send(&frame::bytes(frame::DATA, frame::END_STREAM, stream, &[0, 0, 2, 0x0a, 0])).await;
        assert_eq!(self.end_of(stream).await, None, "the good call is answered");
    }

    /// Waits for this time, and handles the frames that arrive meanwhile.
    async fn wait(&mut self, time: Duration) {
        let _ = timeout(time, async { while self.receive().await {} }).await;
    }
}

/// Returns the beginning of a call that is answered before it is complete, in one of several ways.
fn answered_early(way: usize, stream: u32) -> Vec<u8> {
    let data = |bytes: &[u8]| frame::bytes(frame::DATA, 0, stream, bytes);
    let headers = |block: Vec<u8>| frame::bytes(frame::HEADERS, frame::END_HEADERS, stream, &block);
    match way % 6 {
        // Status 415.
        0 => headers(frame::headers(PATHS[0], "text/plain")),
        // The message is announced as longer than the path allows.
        1 => [frame::call(PATHS[0], stream, 0), data(&[0, 0xff, 0xff, 0xff, 0xff])].concat(),
        2 => [frame::call(PATHS[1], stream, 0), data(&[0, 0, 0, 8, 0])].concat(),
        // UNIMPLEMENTED.
        3 => frame::call(PATHS[3], stream, 0),
        // DEADLINE_EXCEEDED.
        4 => headers([frame::headers_of_a_call(PATHS[0]), frame::header("grpc-timeout", "20m")].concat()),
        // INVALID_ARGUMENT.
        _ => headers([frame::headers_of_a_call(PATHS[0]), frame::header("grpc-timeout", "soon")].concat()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_bytes_of_answered_calls_do_not_end_the_calls_of_others() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut connection = Connection::open(server.address()).await;
    let good = connection.begin_call().await;
    for _ in 0..2 {
        let early: Vec<u32> = (0..CALLS).map(|_| connection.next_stream()).collect();
        for (way, stream) in early.iter().enumerate() {
            connection.send(&answered_early(way, *stream)).await;
        }
        for stream in &early {
            assert_eq!(connection.end_of(*stream).await, None, "the call is answered");
        }
        connection.wait(FORGOTTEN).await;
        for stream in &early {
            connection.send(&frame::bytes(frame::DATA, 0, *stream, &[7; 100])).await;
        }
        for stream in &early {
            connection.send(&frame::bytes(frame::DATA, frame::END_STREAM, *stream, &[7; 100])).await;
        }
        connection.wait(Duration::from_millis(200)).await;
    }
    connection.finish_call(good).await;
    assert_eq!(connection.go_away, None, "the connection continues");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_time_for_late_bytes_do_not_end_the_calls_of_others() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_LATE_BYTES_TIMEOUT", "0ms")
        .start()
        .await;
    let mut connection = Connection::open(server.address()).await;
    let good = connection.begin_call().await;
    let early: Vec<u32> = (0..CALLS).map(|_| connection.next_stream()).collect();
    for stream in &early {
        connection.send(&answered_early(0, *stream)).await;
        assert_eq!(connection.end_of(*stream).await, None, "the call is answered");
    }
    connection.wait(FORGOTTEN).await;
    for stream in &early {
        connection.send(&frame::bytes(frame::DATA, 0, *stream, &[7; 100])).await;
    }
    connection.wait(Duration::from_millis(200)).await;
    connection.finish_call(good).await;
}

/// Sends calls that are cancelled at once, in one write.
async fn cancel_calls(connection: &mut Connection, calls: u32) {
    let mut bytes = Vec::new();
    for _ in 0..calls {
        let stream = connection.next_stream();
        bytes.extend(frame::call(PATHS[0], stream, 0));
        bytes.extend(frame::bytes(frame::RST_STREAM, 0, stream, &frame::CANCEL.to_be_bytes()));
    }
    connection.send(&bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_cancelled_calls_do_not_end_the_calls_of_others() {
    const NO_ERROR: u32 = 0;
    let server = TestServer::start(Engine::Sqlite).await;
    let mut connection = Connection::open(server.address()).await;
    for _ in 0..3 {
        let good = connection.begin_call().await;
        cancel_calls(&mut connection, 100).await;
        connection.finish_call(good).await;
        connection.wait(Duration::from_millis(1_100)).await;
    }
    assert_eq!(connection.go_away, None, "the rate is within the limit");

    let good = connection.begin_call().await;
    cancel_calls(&mut connection, 350).await;
    connection.finish_call(good).await;
    connection.wait(Duration::from_millis(100)).await;
    assert_eq!(connection.go_away, Some(NO_ERROR), "a larger burst drains the connection");

    // A call whose reset arrives in the same read is never handled. Only the last call of a read can be: its
    // reset may come with the next read.
    let handled = server.log().lines().filter(|line| line.contains("IdentityService/ResolveToken")).count();
    assert!(handled < 150, "{handled} of 650 cancelled calls were handled");
}

/// gRPC clients for C++ and Python send their target as `:authority`, also if it is a list of addresses or a
/// socket. h2 resets such a call; the connection stays, and the log says what to do.
#[tokio::test]
async fn a_call_whose_authority_is_not_a_host_is_named_in_the_log() {
    let odd: [&[&str]; 7] = [
        &["ipv4:127.0.0.1:50051,127.0.0.1:50052"],
        &["unix:/run/identity.sock"],
        &["two words"],
        &["localhost:50051:50052"],
        &["[::1"],
        &[""],
        &["localhost", "localhost"],
    ];
    for authorities in odd {
        let server = TestServer::start(Engine::Sqlite).await;
        let mut connection = Connection::open(server.address()).await;
        let good = connection.begin_call().await;
        for path in PATHS {
            let block = frame::headers_to(authorities, path, "application/grpc");
            let stream = connection.send_headers(&block).await;
            assert_eq!(connection.end_of(stream).await, Some(PROTOCOL_ERROR), "{authorities:?}");
        }
        connection.finish_call(good).await;
        let log = server.logged("set its option grpc.default_authority").await;
        assert_eq!(log.matches("(PROTOCOL_ERROR)").count(), 1, "{authorities:?}: {log}");
    }
    // Calls that were answered, and are reset later: too much of a message, and headers that are too long.
    let server = TestServer::start(Engine::Sqlite).await;
    let mut connection = Connection::open(server.address()).await;
    for way in 0..6 {
        let stream = connection.next_stream();
        let early = answered_early(way, stream);
        let announced = frame::header("content-length", "2");
        let headers = frame::bytes(
            frame::HEADERS,
            frame::END_HEADERS,
            stream,
            &[frame::headers_of_a_call("/unknown"), announced].concat(),
        );
        connection.send(if way == 0 { &headers } else { &early }).await;
        connection.end_of(stream).await;
        connection.send(&frame::bytes(frame::DATA, frame::END_STREAM, stream, &[0; 100])).await;
    }
    connection.wait(Duration::from_millis(300)).await;
    assert!(!server.log().contains("grpc.default_authority"), "{}", server.log());

    // No `:authority`, and those that other clients send.
    let usual: [&[&str]; 5] =
        [&[], &["localhost"], &["10.0.0.1:50051"], &["[::1]:50051"], &["a-1.b.example."]];
    let server = TestServer::start(Engine::Sqlite).await;
    let mut connection = Connection::open(server.address()).await;
    for authorities in usual {
        let block = frame::headers_to(authorities, PATHS[0], "application/grpc");
        let stream = connection.send_headers(&block).await;
        connection.send(&frame::bytes(frame::DATA, 0, stream, &[0, 0])).await;
        connection.finish_call(stream).await;
    }
}
