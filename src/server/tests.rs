use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{
    body::Body,
    codegen::Service,
    service::Routes,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;

const FAST: Duration = Duration::from_secs(3);

/// A server of the health service; how it ends is told by [`Running::stop`].
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<DrainReport>,
}

fn options() -> ServerOptions {
    ServerOptions {
        connections_max: 100,
        connections_per_peer_max: 100,
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
        drain_deadline: Duration::from_millis(300),
    }
}

/// Calls are answered by the router, unless their header `test` says otherwise.
struct Plain(Routes);

impl Served for Plain {
    async fn answer(&self, request: Request<Body>, _: &Peer) -> Response<Body> {
        match request.headers().get("test").map(http::HeaderValue::as_bytes) {
            Some(b"panic") => panic!("what stands around handlers panics"),
            Some(b"hang") => std::future::pending().await,
            _ => self.0.clone().call(request).await.unwrap(),
        }
    }
}

impl Running {
    fn start(options: ServerOptions, tls: Option<CurrentTls>) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = Routes::new(health).prepare();
        let task =
            tokio::spawn(serve(listener, Plain(routes), options, tls, Entropy::system(), stop.clone()));
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
        let report = tokio::time::timeout(FAST, self.task).await.expect("the stop ends").unwrap();
        (report, began.elapsed())
    }
}

/// Whether the peer closes without a word.
async fn is_closed(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(FAST, socket.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

/// Whether the client gave a call up before it left: in its queue, or at a stream that the GOAWAY refuses.
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
async fn a_stop_ends_at_once_with_idle_and_silent_peers() {
    let server = Running::start(ServerOptions { drain_deadline: Duration::from_mins(1), ..options() }, None);
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
async fn a_stop_cuts_off_an_open_stream_at_its_deadline() {
    let server = Running::start(options(), None);
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();

    let (_, took) = server.stop().await;

    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(watch.message().await.is_err());
}

/// tonic's client does not repeat a call that met the GOAWAY before it was sent, as other clients do by themselves (gRFC
/// A6, transparent retries); one that the server has begun is always answered.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_connections_reach_their_age() {
    let age = Duration::from_millis(100);
    let server = Running::start(ServerOptions { connection_age: age, ..options() }, None);
    let channel = server.channel().await;
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        if let Err(status) = check(channel.clone()).await {
            assert!(was_never_sent(&status), "{status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_for_nothing_is_told_to_go_and_who_waits_for_an_answer_is_not() {
    let idle = Duration::from_millis(100);
    let options = ServerOptions { connection_idle: idle, connection_age_grace: idle, ..options() };
    let server = Running::start(options, None);
    let (begun, waiting) = (server.channel().await, server.channel().await);
    let mut idle_peer = server.socket().await;
    idle_peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut stream =
        HealthClient::new(waiting).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());

    // Settings, GOAWAY, and after the grace the end, since this one answers nothing.
    tokio::time::timeout(Duration::from_secs(5), idle_peer.read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
    let went_on = tokio::time::timeout(idle * 5, stream.message()).await;
    assert!(went_on.is_err(), "a call that is under way goes on: {went_on:?}");
    // Another connection is made where it is needed.
    if let Err(status) = check(begun).await {
        assert!(was_never_sent(&status), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_http2_in_time_is_gone() {
    let limit = Duration::from_millis(100);
    let server = Running::start(ServerOptions { first_byte_timeout: limit, ..options() }, None);
    let mut silent = server.socket().await;
    let mut half = server.socket().await;
    half.write_all(b"PRI * HT").await.unwrap();

    assert!(is_closed(&mut silent).await && is_closed(&mut half).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_is_refused_at_once() {
    let server = Running::start(options(), None);
    let mut socket = server.socket().await;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();

    assert!(is_closed(&mut socket).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_cap_waits_for_a_slot() {
    let server = Running::start(ServerOptions { connections_max: 1, ..options() }, None);
    let first = server.channel().await;
    check(first.clone()).await.unwrap();
    let second = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();

    let early = tokio::time::timeout(Duration::from_millis(200), check(second.clone())).await;
    assert!(early.is_err(), "{early:?}");

    drop(first);
    tokio::time::timeout(FAST, check(second)).await.expect("there is a slot now").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_too_many_connections_gets_no_other_until_one_closes() {
    let server = Running::start(ServerOptions { connections_per_peer_max: 1, ..options() }, None);
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
    tokio::time::timeout(FAST, next).await.expect("there is a slot now");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_a_handshake_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let limit = Duration::from_millis(200);
    let server = Running::start(
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
fn a_certificate_of_no_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let refusal = || load_tls(&certificate, &key, None, Alpn::Http2).unwrap_err().to_string();
    assert!(refusal().contains("cert.pem"));

    std::fs::write(&certificate, "not a certificate").unwrap();
    assert!(refusal().contains("cert.pem: holds no certificate"));

    let ours = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let theirs = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&certificate, ours.cert.pem()).unwrap();
    assert!(refusal().contains("key.pem"));
    std::fs::write(&key, theirs.signing_key.serialize_pem()).unwrap();
    assert!(refusal().contains("key.pem"), "{}", refusal());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_cut_off_is_counted() {
    for _ in 0..20 {
        let server =
            Running::start(ServerOptions { drain_deadline: Duration::from_millis(50), ..options() }, None);
        let mut client = HealthClient::new(server.channel().await);
        let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watch.message().await.unwrap();

        let (report, _) = server.stop().await;

        assert_eq!(report, DrainReport { connections_aborted: 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_stalled_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let server = Running::start(
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
fn a_mangled_key_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    // A secret store that lost the line ends.
    std::fs::write(&key, certified.signing_key.serialize_pem().replace('\n', " ")).unwrap();
    let secret = certified.signing_key.serialize_pem().lines().nth(1).unwrap()[..20].to_owned();

    let error = load_tls(&certificate, &key, None, Alpn::Http2).unwrap_err();

    let bytes = format!("{:?}", secret.as_bytes());
    let bytes = bytes.trim_matches(|c| c == '[' || c == ']');
    let told = format!("{error} {error:?}");
    assert!(!told.contains(&secret) && !told.contains(bytes), "{told}");
}

#[tokio::test]
async fn calls_of_one_connection_neither_wait_for_each_other_nor_fall_together() {
    let server = Running::start(options(), None);
    let client = HealthClient::new(server.channel().await);
    let call = |test: Option<&'static str>| {
        let (mut client, mut request) = (client.clone(), tonic::Request::new(HealthCheckRequest::default()));
        if let Some(test) = test {
            request.metadata_mut().insert("test", test.parse().unwrap());
        }
        async move { client.check(request).await }
    };
    let hangs = tokio::spawn(call(Some("hang")));

    for _ in 0..10 {
        assert!(call(Some("panic")).await.is_err());
        assert!(call(None).await.is_ok());
    }

    assert!(!hangs.is_finished());
    hangs.abort();
    assert!(call(None).await.is_ok());
    server.stop().await;
}
