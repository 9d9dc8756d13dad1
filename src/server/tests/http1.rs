//! Calls over HTTP/1.1 on the API port.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    super::{
        Body, BodyLimit, BodyLimits, BodyRefusal, DrainReport, HttpHandler, Peer, ServerOptions, bind, serve,
    },
    LIMIT, TestServer, is_closed, options,
};
use crate::entropy::Entropy;

const SHORT: Duration = Duration::from_millis(100);

const CHECK: &str = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: x\r\n";

/// Returns everything that the server sends until it closes the connection.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(LIMIT, socket.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of a response without a body.
async fn answer(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(socket.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("the server answers");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn send(server: &TestServer, bytes: &str) -> TcpStream {
    let mut socket = server.socket().await;
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_all_answered() {
    let server = TestServer::start(options(), None);
    let requests = format!(
        "{CHECK}Content-Length: 0\r\n\r\n{CHECK}Content-Length: 5\r\n\r\n\0\0\0\0\0\
         GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answers = rest(&mut send(&server, &requests).await).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_must_be_complete_in_time() {
    let server = TestServer::start(ServerOptions { first_byte_timeout: SHORT, ..options() }, None);
    for head in ["P", "GET / HT", CHECK] {
        assert!(is_closed(&mut send(&server, head).await).await, "{head}");
    }
    for end in [
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 5\r\n\r\n\0\0\0\0\0",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut in_one_packet = send(&server, &format!("{CHECK}{end}POST / HT")).await;
        let answers = rest(&mut in_one_packet).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{end:?}: {answers}");
    }
    let mut second = send(&server, &format!("{CHECK}Content-Length: 0\r\n\r\n")).await;
    answer(&mut second).await;
    tokio::time::sleep(SHORT * 2).await;
    second.write_all(b"POST / HT").await.expect("an idle connection stays open");
    assert!(is_closed(&mut second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let server = TestServer::start(ServerOptions { connection_idle: SHORT, ..options() }, None);
    let mut socket = send(&server, &format!("{CHECK}Content-Length: 0\r\n\r\n")).await;
    answer(&mut socket).await;
    assert!(is_closed(&mut socket).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_at_its_age_is_closed_after_the_grace() {
    let server = TestServer::start(
        ServerOptions { connection_age: SHORT, connection_age_grace: SHORT, ..options() },
        None,
    );
    let began = Instant::now();
    let mut hanging = send(&server, &format!("{CHECK}Test: hang\r\nContent-Length: 0\r\n\r\n")).await;
    let mut idle = send(&server, &format!("{CHECK}Content-Length: 0\r\n\r\n")).await;
    answer(&mut idle).await;
    assert!(is_closed(&mut idle).await && is_closed(&mut hanging).await);
    // The age is varied by up to a tenth.
    assert!(
        began.elapsed() >= SHORT.mul_f64(1.9),
        "a call may continue for the grace: {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_begins_at_the_end_of_the_grace_is_answered() {
    let grace = Duration::from_secs(1);
    let server = TestServer::start(
        ServerOptions { connection_age: SHORT, connection_age_grace: grace, ..options() },
        None,
    );
    let mut socket = server.socket().await;
    // The age is varied by up to a tenth. The call takes 300 ms.
    tokio::time::sleep(SHORT + grace.saturating_sub(SHORT)).await;
    socket.write_all(format!("{CHECK}Test: slow\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_at_its_age_answers_one_more_request() {
    let server = TestServer::start(ServerOptions { connection_age: SHORT, ..options() }, None);
    let request = format!("{CHECK}Content-Length: 0\r\n\r\n");
    let mut socket = send(&server, &request).await;
    assert!(!answer(&mut socket).await.contains("connection: close"));
    tokio::time::sleep(SHORT * 2).await;
    socket.write_all(request.as_bytes()).await.unwrap();
    let last = answer(&mut socket).await;
    assert!(last.starts_with("HTTP/1.1 200 OK") && last.contains("connection: close"), "{last}");
    assert!(is_closed(&mut socket).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_length_and_chunks_is_refused() {
    let server = TestServer::start(options(), None);
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = format!("{CHECK}{framing}\r\n0\r\n\r\n{smuggled}");
        let answers = rest(&mut send(&server, &request).await).await;
        assert!(answers.starts_with("HTTP/1.1 400 Bad Request"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_length_and_chunks_is_refused_after_another_however_it_is_split() {
    let server = TestServer::start(options(), None);
    let first = format!("{CHECK}Content-Length: 0\r\n\r\n");
    let second = format!("{CHECK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    for split in [0, CHECK.len(), CHECK.len() + 30, second.len() - 6] {
        let (begin, end) = second.split_at(split);
        let mut socket = send(&server, &format!("{first}{begin}")).await;
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
        socket.write_all(end.as_bytes()).await.unwrap();
        let refused = rest(&mut socket).await;
        assert!(refused.starts_with("HTTP/1.1 400 Bad Request"), "split at {split}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_longer_than_a_head_may_is_answered_before_the_next_head() {
    let server = TestServer::start(ServerOptions { first_byte_timeout: SHORT, ..options() }, None);
    let mut socket = send(&server, &format!("{CHECK}Test: slow\r\nContent-Length: 0\r\n\r\n{CHECK}")).await;
    assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
    socket.write_all(b"Content-Length: 0\r\n\r\n").await.unwrap();
    assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_head_has_its_own_time() {
    const LONG: Duration = Duration::from_secs(1);
    let server = TestServer::start(ServerOptions { first_byte_timeout: LONG, ..options() }, None);
    let request = format!("{CHECK}Content-Length: 0\r\n\r\n");
    let (begin, rest) = request.split_at(5);
    let mut socket = send(&server, begin).await;
    tokio::time::sleep(LONG.mul_f64(0.7)).await;
    socket.write_all(format!("{rest}{begin}").as_bytes()).await.unwrap();
    answer(&mut socket).await;
    tokio::time::sleep(LONG.mul_f64(0.5)).await;
    socket.write_all(rest.as_bytes()).await.unwrap();
    assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_chunked_requests_one_after_the_other() {
    let server = TestServer::start(options(), None);
    let chunked = format!("{CHECK}Transfer-Encoding: chunked\r\n\r\n2\r\n\0\0\r\n3\r\n\0\0\0\r\n0\r\n\r\n");
    let requests = format!("{chunked}{chunked}GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answers = rest(&mut send(&server, &requests).await).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_transfer_coding_is_refused() {
    let server = TestServer::start(options(), None);
    let request = format!("{CHECK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    let answer = rest(&mut send(&server, &request).await).await;
    assert!(answer.starts_with("HTTP/1.1 501 Not Implemented"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_by_the_library() {
    let server = TestServer::start(options(), None);
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20 * 1024));
    for request in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "POST\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        &huge,
    ] {
        let answer = rest(&mut send(&server, request).await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:.60}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_immediate_with_idle_connections_and_unfinished_heads() {
    let server =
        TestServer::start(ServerOptions { drain_deadline: Duration::from_mins(1), ..options() }, None);
    let _half = send(&server, CHECK).await;
    let mut idle = send(&server, &format!("{CHECK}Content-Length: 0\r\n\r\n")).await;
    answer(&mut idle).await;

    let (report, _) = server.stop().await;

    assert_eq!(report, DrainReport { connections_aborted: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_being_sent_at_a_shutdown_is_complete() {
    let server =
        TestServer::start(ServerOptions { drain_deadline: Duration::from_mins(1), ..options() }, None);
    let mut sockets = Vec::new();
    for begin_of_next in ["", "\r\n", "POST / HT"] {
        let request = format!("{CHECK}Test: slow-body\r\nContent-Length: 0\r\n\r\n{begin_of_next}");
        let mut socket = send(&server, &request).await;
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
        sockets.push((socket, begin_of_next));
    }
    server.stop().await;
    for (mut socket, begin_of_next) in sockets {
        assert_eq!(rest(&mut socket).await, "4\r\nlate\r\n0\r\n\r\n", "{begin_of_next:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_trailers_without_crlf_closes_the_connection() {
    let server = TestServer::start(options(), None);
    for trailers in ["\n", "x: y\n\n"] {
        let request = format!(
            "{CHECK}Transfer-Encoding: chunked\r\n\r\n0\r\n{trailers}GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let answers = rest(&mut send(&server, &request).await).await;
        assert!(answers.matches("HTTP/1.1 ").count() <= 1 && !answers.contains("200 OK"), "{answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_closes_its_connection_only() {
    let server = TestServer::start(options(), None);
    let mut other = send(&server, &format!("{CHECK}Content-Length: 0\r\n\r\n")).await;
    answer(&mut other).await;
    assert!(is_closed(&mut send(&server, &format!("{CHECK}Test: panic\r\n\r\n")).await).await);
    other.write_all(format!("{CHECK}Content-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    answer(&mut other).await;
}

/// Refuses each request at once, and notes how many turns another task of the thread has had.
struct Refusing {
    turns: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<usize>>>,
}

impl HttpHandler for Refusing {
    async fn answer(&self, _: Request<Body>, _: &Peer) -> Response<Body> {
        self.seen.lock().unwrap().push(self.turns.load(Ordering::SeqCst));
        Response::new(Body::empty())
    }
}

impl BodyLimits for Refusing {
    fn body_limit(&self, _: &str) -> BodyLimit {
        BodyLimit { bytes_max: 0, waiting_bytes: 0, is_of_health: false }
    }

    fn reserved_bytes(_: &[u8]) -> usize {
        0
    }

    fn body_refused(_: BodyRefusal) -> Status {
        Status::internal("not called")
    }
}

#[tokio::test]
async fn other_tasks_of_the_thread_run_between_pipelined_requests() {
    const REQUESTS: usize = 100;
    let (turns, seen) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let service = Refusing { turns: Arc::clone(&turns), seen: Arc::clone(&seen) };
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, service, options(), None, Entropy::system(), stop.clone()));
    let other = tokio::spawn(async move {
        loop {
            turns.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });

    let mut socket = TcpStream::connect(address).await.unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS);
    socket.write_all(requests.as_bytes()).await.unwrap();
    while seen.lock().unwrap().len() < REQUESTS {
        tokio::task::yield_now().await;
    }

    let seen = seen.lock().unwrap().clone();
    // Another wake of the connection may end the turn of one request early.
    assert!(seen.windows(3).all(|three| three[0] < three[2]), "{seen:?}");
    other.abort();
    stop.cancel();
    server.await.unwrap();
}
