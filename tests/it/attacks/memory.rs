//! Requests of one peer that are never finished: the memory that they occupy has a limit on every path.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{PATHS, frame};
use crate::support::{
    engine::Engine,
    server::{TestServer, resident_mib},
};

/// Limit of the memory growth of the service because of the requests of one peer, in MiB.
const GROWTH_MAX_MIB: u64 = 16;

/// Time for which the memory of the service is watched.
const WATCHED: Duration = Duration::from_secs(6);

const READING_INTERVAL: Duration = Duration::from_millis(20);

/// The time for which memory must be occupied to count as held. How much is occupied for less than this
/// depends on how busy the machine is.
const HELD: Duration = Duration::from_millis(500);

/// A body of these parts that never ends.
struct Unfinished(VecDeque<Bytes>);

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.pop_front().map_or(Poll::Pending, |part| Poll::Ready(Some(Ok(Frame::data(part)))))
    }
}

/// What the attacker opens.
#[derive(Clone, Copy)]
pub struct Flood {
    pub connections: usize,
    pub streams: usize,
    /// The length that each message announces.
    pub announced: u32,
    /// The number of bytes that are sent of each message, after its prefix; `None` if no byte is sent.
    pub sent: Option<usize>,
    /// The number of headers of each call.
    pub headers: usize,
}

/// Opens a connection from the address `from`.
pub async fn connect_from(from: IpAddr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends the unfinished calls of one connection and holds them.
pub async fn hold_calls(address: SocketAddr, path: &'static str, flood: Flood) {
    hold_calls_on(TcpStream::connect(address).await.unwrap(), path, flood, None).await;
}

/// Sends the unfinished calls of a connection, with this service token, and holds them.
pub async fn hold_calls_on(socket: TcpStream, path: &'static str, flood: Flood, token: Option<&str>) {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(connection.await) });
    let prefix = [&[0][..], &flood.announced.to_be_bytes()].concat();
    for _ in 0..flood.streams {
        let part = Bytes::from(vec![0; 16 * 1_024]);
        let mut parts = VecDeque::new();
        if let Some(sent) = flood.sent {
            parts.push_back(Bytes::from(prefix.clone()));
            parts.extend((0..sent / part.len()).map(|_| part.clone()));
            parts.push_back(part.slice(..sent % part.len()));
        }
        let mut request =
            Request::post(format!("http://kairos.test{path}")).header("content-type", "application/grpc");
        if let Some(token) = token {
            request = request.header("kairos-caller-token", token);
        }
        for number in 1..flood.headers {
            request = request.header(format!("x-{number}"), "y");
        }
        let request = request.body(Unfinished(parts)).unwrap();
        if sender.ready().await.is_err() {
            break;
        }
        let answer = sender.send_request(request);
        tasks.spawn(async { drop(answer.await) });
    }
    while tasks.join_next().await.is_some() {}
}

/// Returns the most memory that was occupied for [`HELD`], from readings with their times.
fn held_mib(readings: &[(Duration, u64)]) -> u64 {
    let held_from = |first: usize| {
        let (from, _) = readings[first];
        let window = readings[first..].iter().take_while(|(at, _)| *at <= from + HELD);
        window.map(|(_, mib)| *mib).min()
    };
    let complete = readings.iter().filter(|(at, _)| *at + HELD <= WATCHED).count();
    (0..complete).filter_map(held_from).max().unwrap()
}

/// Asserts that the memory that a service holds (for [`HELD`]) grows by less than [`GROWTH_MAX_MIB`] from
/// `before` on.
pub async fn assert_growth_is_limited(server: &TestServer, before: u64, path: &str) {
    let process = server.process_id();
    // On a thread of its own: those of the runtime are busy with the attack.
    let reader = tokio::task::spawn_blocking(move || {
        let (began, mut readings) = (Instant::now(), Vec::new());
        while began.elapsed() < WATCHED {
            readings.push((began.elapsed(), resident_mib(process)));
            thread::sleep(READING_INTERVAL);
        }
        readings
    });
    let held = held_mib(&reader.await.unwrap());
    println!("{path}: from {before} to {held} MiB");
    assert!(held < before + GROWTH_MAX_MIB, "{path}: from {before} to {held} MiB");
}

/// The address of the peer that attacks.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Asserts that the memory of a service stays limited while one peer holds these calls, and that the service
/// still answers another one.
async fn assert_bounded(path: &'static str, flood: Flood) {
    let server = TestServer::start(Engine::Sqlite).await;
    let before = server.resident_mib();
    let mut attackers = JoinSet::new();
    for _ in 0..flood.connections {
        let address = server.address();
        attackers.spawn(async move {
            hold_calls_on(connect_from(ATTACKER, address).await, path, flood, None).await;
        });
    }
    assert_growth_is_limited(&server, before, path).await;
    let unknown = kairos_identity::proto::ResolveTokenRequest { auth_token: "x".repeat(64) };
    assert!(server.client().await.resolve_token(unknown).await.is_err_and(|status| {
        [tonic::Code::NotFound, tonic::Code::InvalidArgument].contains(&status.code())
    }));
}

const LOGIN: &str = "/kairos.identity.v1.IdentityService/Login";

/// Returns a path of each class, one that the gRPC library handles, and one that streams.
fn paths() -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().chain([LOGIN, "/grpc.health.v1.Health/Watch"])
}

/// Makes the flood against a service for each of [`paths`], at the same time: memory does not depend on how
/// fast a service is.
async fn assert_bounded_on_every_path(flood: Flood) {
    join_all(paths().map(|path| assert_bounded(path, flood))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_of_one_peer_occupy_little_memory_on_every_path() {
    // The length that the gRPC library accepts by default.
    let flood =
        Flood { connections: 3, streams: 96, announced: 4 << 20, sent: Some(400 * 1_024), headers: 1 };
    assert_bounded_on_every_path(flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_of_one_peer_occupy_little_memory_on_every_path() {
    let flood =
        Flood { connections: 8, streams: 250, announced: 60 * 1_024, sent: Some(50 * 1_024), headers: 1 };
    assert_bounded_on_every_path(flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_message_of_one_peer_occupy_little_memory_on_every_path() {
    let flood = Flood { connections: 16, streams: 250, announced: 60 * 1_024, sent: Some(0), headers: 1 };
    assert_bounded_on_every_path(flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_byte_of_one_peer_occupy_little_memory() {
    // The classes of paths whose calls count differently while they wait for the first byte.
    let one = "/kairos.identity.v1.IdentityService/ResolveToken";
    let several = "/kairos.identity.v1.IdentityService/ResolveTokens";
    let flood = Flood { connections: 16, streams: 250, announced: 0, sent: None, headers: 1 };
    join_all([one, several, LOGIN].map(|path| assert_bounded(path, flood))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_of_one_peer_occupy_little_memory() {
    const CONNECTIONS: usize = 300;
    let server = TestServer::start(Engine::Sqlite).await;
    let before = server.resident_mib();
    // Three frames without the flag of the last one. Their call never begins.
    let field = frame::header("x", &"y".repeat(100));
    let begin = [frame::headers_of_a_call(PATHS[0]), field.repeat(100)].concat();
    let more = frame::bytes(frame::CONTINUATION, 0, 1, &field.repeat(150));
    let bytes = [frame::preface(), frame::bytes(frame::HEADERS, 0, 1, &begin), more.clone(), more].concat();
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, bytes) = (server.address(), bytes.clone());
        attackers.spawn(async move {
            let mut socket = connect_from(ATTACKER, address).await;
            // The service may close the connection at any time.
            let _ = socket.write_all(&bytes).await;
            tokio::time::sleep(WATCHED + HELD).await;
        });
    }
    assert_growth_is_limited(&server, before, "unfinished headers").await;
    server.unverified_user("ada").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_many_headers_of_one_peer_occupy_little_memory_on_every_path() {
    // Nearly as many headers as the service accepts: each counts as 38 of its 16,384 bytes. The table of
    // HPACK holds 107 of them, so that most are sent in full again.
    let flood = Flood { connections: 8, streams: 250, announced: 1_000, sent: Some(0), headers: 390 };
    assert_bounded_on_every_path(flood).await;
}
