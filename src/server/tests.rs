mod http1;
mod tls;

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{
    Status,
    body::Body,
    codegen::Service,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;

/// The time limit of an operation that should be fast.
const LIMIT: Duration = Duration::from_secs(3);

/// The type of the frame GOAWAY (RFC 9113, section 6.8).
const GOAWAY: u8 = 7;

/// Returns the types of these frames of HTTP/2. The head of a frame has 9 bytes: the first three are the
/// length of the rest, and the fourth is the type.
fn frame_types(mut frames: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [high, middle, low, kind, ..] = *frames {
        types.push(kind);
        frames = &frames[9 + u32::from_be_bytes([0, high, middle, low]) as usize..];
    }
    types
}

/// A server of the health service. [`TestServer::stop`] returns the result of its shutdown.
struct TestServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<DrainReport>,
}

const PEER_LIMITS: PeerLimits = PeerLimits {
    connections_max: 100,
    calls_max: 1_000,
    streaming_calls_max: 100,
    unfinished_bytes_max: 1_024 * 1_024,
    unfinished_bytes_total_max: 1_024 * 1_024,
    waiting_bytes_total_max: 1_024 * 1_024,
};

fn options() -> ServerOptions {
    ServerOptions {
        workers: Workers::current(),
        connections_max: 100,
        peer_limits: PEER_LIMITS,
        first_byte_timeout: Duration::from_mins(1),
        tls_handshake_timeout: Duration::from_mins(1),
        connection_age: Duration::from_mins(1),
        connection_age_grace: Duration::from_mins(1),
        connection_idle: Duration::from_mins(1),
        keepalive_interval: Duration::from_mins(1),
        keepalive_timeout: Duration::from_mins(1),
        streams_per_connection_max: 100,
        header_list_bytes_max: 16 * 1024,
        send_buffer_bytes_max: 64 * 1024,
        late_bytes_max: 64 * 1024,
        late_bytes_timeout: Duration::from_secs(1),
        resets_per_second_max: 100,
        drain_deadline: Duration::from_millis(300),
        metrics: ConnectionMetrics::default().of_port("api"),
    }
}

/// Returns a body whose only bytes are `late`, after 300 ms.
fn slow_body() -> Body {
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<_, Status>(Frame::data(Bytes::from_static(b"late")))
    };
    Body::new(StreamBody::new(futures_util::stream::once(late)))
}

/// Answers calls with the router, unless the header `test` requests a panic, or a call that hangs or takes
/// 300 ms, or whose body does.
struct TestService(Routes);

impl HttpHandler for TestService {
    async fn answer(&self, request: Request<Body>, _: &Peer) -> Response<Body> {
        match request.headers().get("test").map(http::HeaderValue::as_bytes) {
            Some(b"panic") => panic!("panic outside of the handlers"),
            Some(b"hang") => std::future::pending().await,
            Some(b"slow") => tokio::time::sleep(Duration::from_millis(300)).await,
            Some(b"slow-body") => return Response::new(slow_body()),
            _ => {}
        }
        self.0.clone().call(request).await.unwrap()
    }
}

impl BodyLimits for TestService {
    fn body_limit(&self, _: &str) -> BodyLimit {
        BodyLimit { bytes_max: 64 * 1024, waiting_bytes: 16 * 1024, is_of_health: false }
    }

    fn reserved_bytes(_: &[u8]) -> usize {
        0
    }

    fn body_refused(refusal: BodyRefusal) -> tonic::Status {
        tonic::Status::resource_exhausted(format!("{refusal:?}"))
    }
}

impl TestServer {
    fn start(options: ServerOptions, tls: Option<CurrentTls>) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = Routes::new(health).prepare();
        let task =
            tokio::spawn(serve(listener, TestService(routes), options, tls, Entropy::system(), stop.clone()));
        Self { address, stop, task }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) -> (DrainReport, Duration) {
        let began = Instant::now();
        self.stop.cancel();
        let report = tokio::time::timeout(LIMIT, self.task).await.expect("the shutdown finishes").unwrap();
        (report, began.elapsed())
    }
}

/// True if the peer closes the connection without sending anything.
async fn is_closed(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(LIMIT, socket.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

/// True if the client failed a call that it never sent: while it was queued, or because the GOAWAY rejected
/// its stream.
fn was_never_sent(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    format!("{status:?}").contains("GoAway(b\"\", NO_ERROR, Remote)")
}

async fn check(channel: Channel) -> Result<(), tonic::Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_immediate_with_idle_and_silent_peers() {
    let server =
        TestServer::start(ServerOptions { drain_deadline: Duration::from_mins(1), ..options() }, None);
    let channel = server.channel().await;
    check(channel.clone()).await.unwrap();
    let _silent = server.socket().await;
    let mut half = server.socket().await;
    half.write_all(b"PRI * HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let (report, _) = server.stop().await;

    assert_eq!(report, DrainReport { connections_aborted: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_a_peer_without_a_call_that_acknowledges_nothing() {
    let server =
        TestServer::start(ServerOptions { drain_deadline: Duration::from_mins(1), ..options() }, None);
    let mut silent = server.socket().await;
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    silent.read_u8().await.unwrap();

    let (report, _) = server.stop().await;

    assert_eq!(report, DrainReport { connections_aborted: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_aborts_an_open_stream_at_the_deadline() {
    let server = TestServer::start(options(), None);
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();

    let (_, took) = server.stop().await;

    assert!(took >= options().drain_deadline, "{took:?}");
    assert!(watch.message().await.is_err());
}

/// tonic's client does not retry a call that was not sent because of a GOAWAY; other clients do (gRFC A6,
/// transparent retries). A call that the server has started is always answered.
#[tokio::test(flavor = "multi_thread")]
async fn no_sent_call_fails_when_connections_reach_their_age() {
    let age = Duration::from_millis(100);
    let server = TestServer::start(ServerOptions { connection_age: age, ..options() }, None);
    let channel = server.channel().await;
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        if let Err(status) = check(channel.clone()).await {
            assert!(was_never_sent(&status), "{status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_idle_from_the_end_of_its_last_call() {
    const IDLE: Duration = Duration::from_millis(400);
    /// The time of a slow call of [`TestService`].
    const CALL: Duration = Duration::from_millis(300);
    /// HEADERS of stream 1, which end the stream: POST / over http, with `test: slow` (RFC 7541, section 6).
    const SLOW_CALL: &[u8] = b"\0\0\x0e\x01\x05\0\0\0\x01\x83\x86\x84\0\x04test\x04slow";
    let grace = Duration::from_millis(10);
    let options = ServerOptions { connection_idle: IDLE, connection_age_grace: grace, ..options() };
    let server = TestServer::start(options, None);
    let mut peer = server.socket().await;
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The call is in flight when the first idle time has passed.
    tokio::time::sleep(IDLE.saturating_sub(CALL / 2)).await;
    let began = Instant::now();
    peer.write_all(SLOW_CALL).await.unwrap();

    let mut received = Vec::new();
    let closed = tokio::time::timeout(LIMIT, peer.read_to_end(&mut received)).await;
    closed.unwrap().unwrap();

    let types = frame_types(&received);
    assert!(types.contains(&1) && types.contains(&GOAWAY), "an answer and GOAWAY: {types:?}");
    assert!(began.elapsed() >= CALL + IDLE, "idle for {:?} only", began.elapsed().saturating_sub(CALL));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_gets_goaway_and_one_with_an_open_call_does_not() {
    let idle = Duration::from_millis(100);
    let options = ServerOptions { connection_idle: idle, connection_age_grace: idle, ..options() };
    let server = TestServer::start(options, None);
    let (unused, streaming) = (server.channel().await, server.channel().await);
    let mut idle_peer = server.socket().await;
    idle_peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut stream =
        HealthClient::new(streaming).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());

    // This peer does not react to the GOAWAY, so the server closes the connection after the grace.
    let mut received = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), idle_peer.read_to_end(&mut received)).await;
    closed.unwrap().unwrap();
    assert!(frame_types(&received).contains(&GOAWAY), "{received:?}");
    let message = tokio::time::timeout(idle * 5, stream.message()).await;
    assert!(message.is_err(), "an open stream continues: {message:?}");
    // The channel reconnects when it is used.
    if let Err(status) = check(unused).await {
        assert!(was_never_sent(&status), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_timely_preface_is_closed() {
    let limit = Duration::from_millis(100);
    let server = TestServer::start(ServerOptions { first_byte_timeout: limit, ..options() }, None);
    let mut silent = server.socket().await;
    let mut half = server.socket().await;
    half.write_all(b"PRI * HT").await.unwrap();

    assert!(is_closed(&mut silent).await && is_closed(&mut half).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_rejected_immediately() {
    let server = TestServer::start(options(), None);
    for bytes in [&b"\x16\x03\x01\x02\0"[..], b"get / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\0"] {
        let mut socket = server.socket().await;
        socket.write_all(bytes).await.unwrap();

        assert!(is_closed(&mut socket).await, "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_the_limit_waits_for_a_slot() {
    let server = TestServer::start(ServerOptions { connections_max: 1, ..options() }, None);
    let first = server.channel().await;
    check(first.clone()).await.unwrap();
    let second = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();

    let early = tokio::time::timeout(Duration::from_millis(200), check(second.clone())).await;
    assert!(early.is_err(), "{early:?}");

    drop(first);
    tokio::time::timeout(LIMIT, check(second)).await.expect("a slot is free").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_at_its_connection_limit_gets_no_other_until_one_closes() {
    let server = TestServer::start(
        ServerOptions { peer_limits: PeerLimits { connections_max: 1, ..PEER_LIMITS }, ..options() },
        None,
    );
    let first = server.channel().await;
    check(first.clone()).await.unwrap();

    assert!(is_closed(&mut server.socket().await).await);
    check(first.clone()).await.unwrap();

    drop(first);
    let next = async {
        loop {
            if check(server.channel().await).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.expect("a slot is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_connections_are_counted() {
    // Repeated, because a connection could close just before it is counted.
    for _ in 0..20 {
        let server =
            TestServer::start(ServerOptions { drain_deadline: Duration::from_millis(50), ..options() }, None);
        let mut client = HealthClient::new(server.channel().await);
        let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watch.message().await.unwrap();

        let (report, _) = server.stop().await;

        assert_eq!(report, DrainReport { connections_aborted: 1 });
    }
}

#[tokio::test]
async fn calls_of_one_connection_do_not_block_or_break_each_other() {
    let server = TestServer::start(options(), None);
    let client = HealthClient::new(server.channel().await);
    let call = |test: Option<&'static str>| {
        let (mut client, mut request) = (client.clone(), tonic::Request::new(HealthCheckRequest::default()));
        if let Some(test) = test {
            request.metadata_mut().insert("test", test.parse().unwrap());
        }
        async move { client.check(request).await }
    };
    let hanging = tokio::spawn(call(Some("hang")));

    for _ in 0..10 {
        assert!(call(Some("panic")).await.is_err());
        assert!(call(None).await.is_ok());
    }

    assert!(!hanging.is_finished());
    hanging.abort();
    assert!(call(None).await.is_ok());
    server.stop().await;
}
