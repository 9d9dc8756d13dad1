//! The log lines that strangers can cause: few, with the number of the others.

use kairos_identity::proto::identity_service_client::IdentityServiceClient;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Request, Status, client::Grpc, transport::Channel};

use crate::{
    attacks::frame,
    support::{
        callers::{Bearer, CallersFile, token},
        engine::Engine,
        http::get,
        people::by_email,
        raw::Raw,
        server::TestServer,
    },
};

/// Calls of each kind.
const CALLS: usize = 200;

/// Calls the method at `path` without a message.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(Vec::new()), path.parse().unwrap(), Raw).await.map(drop)
}

/// Returns the lines of the log that contain `text`, and the sum of their numbers of further requests.
fn lines(log: &str, text: &str) -> (usize, usize) {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
    let more = lines.iter().filter_map(|line| {
        let (before, _) = line.split_once(" more requests within a minute")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    });
    (lines.len(), more.sum())
}

/// Stops the service, which logs the numbers, and returns the log.
async fn log_at_end(mut server: TestServer) -> String {
    server.terminate();
    server.wait().await;
    server.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_strangers_are_counted_in_few_lines() {
    let callers = CallersFile::new(&[("bff", &token(1), "*", "*")]);
    let server = callers.serve(Engine::Sqlite).await;
    let channel = server.channel().await;
    let methods = ["/unknown.Service/Method", "/kairos.identity.v1.IdentityService/Login"];
    for path in methods.into_iter().cycle().take(CALLS) {
        call(&channel, path).await.unwrap_err();
    }

    let log = log_at_end(server).await;

    let (count, more) = lines(&log, "CALLER_UNKNOWN");
    assert!(count <= 4, "{log}");
    // Each window logs one call in full. A second one begins if a minute ends meanwhile.
    assert!((CALLS - 2..CALLS).contains(&more), "{more} of {CALLS}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_a_caller_may_not_make_are_counted_in_few_lines() {
    let callers = CallersFile::new(&[("agent", &token(1), "IdentityService/ResolveToken", "*")]);
    let server = callers.serve(Engine::Sqlite).await;
    let mut client = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(token(1))));
    for _ in 0..CALLS {
        client.find_user(by_email("ada@example.com")).await.unwrap_err();
    }

    let log = log_at_end(server).await;

    let (count, more) = lines(&log, "CALLER_NOT_ALLOWED of agent");
    let (all, _) = lines(&log, "CALLER_NOT_ALLOWED");
    assert!(count <= 2 && all <= 8 && (CALLS - 2..CALLS).contains(&more), "{count}, {all}, {more}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_which_the_http2_library_warns_leave_no_line() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    // Acknowledges no PING.
    let ping = frame::bytes(frame::PING, frame::ACK, 0, &[0; 8]);
    let frames = [frame::preface(), ping.repeat(10_000), frame::bytes(frame::PING, 0, 0, &[1; 8])].concat();
    socket.write_all(&frames).await.unwrap();
    let answer = frame::bytes(frame::PING, frame::ACK, 0, &[1; 8]);
    let mut received = Vec::new();
    while !received.windows(answer.len()).any(|bytes| bytes == answer) {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0, "the PING is answered");
    }

    let log = log_at_end(server).await;

    assert!(log.lines().count() < 50, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_unknown_methods_and_requests_of_unknown_pages_are_counted_in_few_lines() {
    let server = TestServer::start(Engine::Sqlite).await;
    let (channel, http) = (server.channel().await, server.http_address());
    for number in 0..CALLS {
        call(&channel, &format!("/unknown.Service/Method{number}")).await.unwrap_err();
        assert_eq!(get(http, &format!("/unknown-{number}")).status, 404);
    }

    let log = log_at_end(server).await;

    for text in ["UNIMPLEMENTED", "404"] {
        let (count, more) = lines(&log, text);
        assert!(count <= 4 && (CALLS - 2..CALLS).contains(&more), "{text}: {count}, {more}: {log}");
    }
}
