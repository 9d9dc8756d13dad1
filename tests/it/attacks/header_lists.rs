//! Calls with headers that break a rule, on a connection that others share. The HTTP/2 library answers some
//! of them as one call, and ends the connection at others (docs/threat-model.md, "A flood").

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{PATHS, frame};
use crate::support::{engine::Engine, server::TestServer};

const LIMIT: Duration = Duration::from_secs(5);

/// Sends a call with these further header fields. Returns the kinds and streams of the frames that the
/// service sends until it has answered the call, or has closed the connection.
async fn frames_after(server: &TestServer, fields: &[u8]) -> Vec<(u8, u32)> {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let block = [frame::headers_of_a_call(PATHS[0]), fields.to_vec()].concat();
    let mut parts = block.chunks(16_000).peekable();
    let mut bytes = frame::preface();
    let mut kind = frame::HEADERS;
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { frame::END_HEADERS } else { 0 };
        bytes.extend(frame::bytes(kind, flags, 1, part));
        kind = frame::CONTINUATION;
    }
    socket.write_all(&bytes).await.unwrap();
    let (mut frames, mut head) = (Vec::new(), [0; 9]);
    while timeout(LIMIT, socket.read_exact(&mut head)).await.is_ok_and(|read| read.is_ok()) {
        let [l1, l2, l3, kind, _, s1, s2, s3, s4] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l1, l2, l3]) as usize];
        if socket.read_exact(&mut payload).await.is_err() {
            break;
        }
        let stream = u32::from_be_bytes([s1, s2, s3, s4]);
        frames.push((kind, stream));
        if stream == 1 {
            break;
        }
    }
    frames
}

fn fields(count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| frame::header("x-filler", &"y".repeat(100))).collect()
}

/// Returns the same fields, each after the first one as an index of one byte (RFC 7541, section 6.1).
fn indexed_fields(count: usize) -> Vec<u8> {
    let mut first = fields(1);
    first[0] = 0x40;
    [first, vec![0xbe; count - 1]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_list_over_the_limit_is_refused_alone_and_one_over_four_times_the_limit_ends_its_connection()
{
    let server = TestServer::start(Engine::Sqlite).await;
    // Each field counts as 140 bytes; the limit is 16 KiB.
    for count in [150, 400] {
        let frames = frames_after(&server, &fields(count)).await;
        assert_eq!(frames.last(), Some(&(frame::HEADERS, 1)), "{count}: status 431");
        assert!(!frames.iter().any(|(kind, _)| *kind == frame::GOAWAY), "{count}: {frames:?}");
    }
    // Over four times the limit in one frame, and in more frames than the library reads.
    for fields in [indexed_fields(600), fields(1_200)] {
        let frames = frames_after(&server, &fields).await;
        assert!(frames.contains(&(frame::GOAWAY, 0)), "{frames:?}");
    }

    let raised = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_HEADER_LIST_BYTES_MAX", "32KiB")
        .start()
        .await;
    let frames = frames_after(&raised, &indexed_fields(600)).await;
    assert_eq!(frames.last(), Some(&(frame::HEADERS, 1)), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_no_proxy_passes_on_ends_its_connection() {
    let server = TestServer::start(Engine::Sqlite).await;
    for (name, value) in [("x-user", "\u{1b}[2J"), ("X-User", "a"), ("x user", "a")] {
        let frames = frames_after(&server, &frame::header(name, value)).await;
        assert!(frames.contains(&(frame::GOAWAY, 0)), "{name}: {frames:?}");
    }
    // A rule of HTTP/2 that does not concern the form of a field.
    let frames = frames_after(&server, &frame::header("connection", "close")).await;
    assert_eq!(frames.last(), Some(&(frame::RST_STREAM, 1)), "{frames:?}");
}
