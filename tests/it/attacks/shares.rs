//! One party that takes as much as it can: a caller with few rights that calls from many addresses, or
//! strangers at several addresses. Something is left for the others.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use kairos_identity::proto::{ResolveTokensRequest, identity_service_client::IdentityServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::{Request, Status, client::Grpc};

use super::memory::{Flood, connect_from, hold_calls, hold_calls_on};
use crate::support::{
    callers::{Bearer, CallersFile, token},
    engine::Engine,
    http::get,
    raw::Raw,
    server::{Builder, TestServer},
};

const RESOLVE: &str = "/kairos.identity.v1.IdentityService/ResolveTokens";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Time within which a new connection must be served although others hold all places.
const SERVED_LIMIT: Duration = Duration::from_secs(3);

/// Returns an address of the loopback network.
fn loopback(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
}

/// Two callers, of which `low` may call one method.
fn two_callers() -> CallersFile {
    let (low, bff) = (token(1), token(2));
    CallersFile::new(&[("low", &low, "IdentityService/ResolveTokens", "*"), ("bff", &bff, "*", "*")])
}

/// Resolves so many tokens that their message does not fit into one frame, so that the call waits for it.
async fn resolve_many(server: &TestServer) -> Result<(), Status> {
    let mut bff = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(token(2))));
    let auth_tokens = vec![uuid::Uuid::from_u128(1).to_string(); 1_000];
    bff.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_of_a_caller_at_many_addresses_leave_room_for_those_of_others() {
    let settings = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_UNFINISHED_BYTES_MAX", "8MiB")
        .with_env("KAIROS_IDENTITY_SERVER_UNFINISHED_BYTES_PER_PEER_MAX", "1MiB");
    let callers = two_callers();
    let server = callers.serve_on(settings).await;
    let flood = Flood { connections: 1, streams: 60, announced: 60 * 1_024, sent: Some(1), headers: 1 };
    let mut held = JoinSet::new();
    for number in 10..50 {
        let socket = connect_from(loopback(number), server.address()).await;
        held.spawn(async move { hold_calls_on(socket, RESOLVE, flood, Some(token(1).expose())).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    for _ in 0..10 {
        resolve_many(&server).await.unwrap();
    }
}

/// Opens connections that send `bytes` and then nothing, two from each of five addresses.
async fn silent_connections(address: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for number in [10, 10, 11, 11, 12, 12, 13, 13, 14, 14] {
        let mut socket = connect_from(loopback(number), address).await;
        socket.write_all(bytes).await.unwrap();
        open.push(socket);
    }
    open
}

fn with_few_connections(builder: Builder, section: &str) -> Builder {
    builder
        .with_env(&format!("KAIROS_IDENTITY_{section}_CONNECTIONS_MAX"), "10")
        .with_env(&format!("KAIROS_IDENTITY_{section}_CONNECTIONS_PER_PEER_MAX"), "4")
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_strangers_leave_places_at_the_port_of_the_pages() {
    let server = with_few_connections(TestServer::builder(Engine::Sqlite), "HTTP").start().await;
    let http = server.http_address();
    let _open = silent_connections(http, b"GET /verify HTTP/1.1\r\nHost: a\r\n").await;

    for path in ["/.well-known/jwks.json", "/style.css", "/verify?token=x"] {
        let began = Instant::now();
        let answer = tokio::task::spawn_blocking(move || get(http, path)).await.unwrap();
        assert!(answer.status < 500 && began.elapsed() < SERVED_LIMIT, "{path}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_strangers_leave_places_at_the_port_of_the_api() {
    let callers = two_callers();
    let builder = with_few_connections(TestServer::builder(Engine::Sqlite), "SERVER");
    let server = callers.serve_on(builder).await;
    let _open = silent_connections(server.address(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;

    timeout(SERVED_LIMIT, resolve_many(&server)).await.expect("a place is free").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_caller_leave_places_for_other_callers() {
    let callers = two_callers();
    let builder = with_few_connections(TestServer::builder(Engine::Sqlite), "SERVER");
    let server = callers.serve_on(builder).await;
    let (path, low) = (RESOLVE, token(1));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\
         Kairos-Caller-Token: {}\r\n\r\n{{\"auth_tokens\": []}}",
        low.expose()
    );
    let mut open = silent_connections(server.address(), request.as_bytes()).await;
    for socket in &mut open {
        let mut answer = [0; 12];
        timeout(SERVED_LIMIT, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
    }

    timeout(SERVED_LIMIT, resolve_many(&server)).await.expect("a place is free").unwrap();
}

/// Checks the health on a new connection. The message arrives some time after the headers.
async fn check_health(server: &TestServer) -> Result<(), Status> {
    let mut grpc = Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let message = futures_util::stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Vec::new()
    });
    grpc.client_streaming(Request::new(message), CHECK.parse().unwrap(), Raw).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_address_of_a_load_balancer_leave_it_its_health_checks() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut held = JoinSet::new();
    // More calls than one peer may have in flight, with more memory than one peer may hold.
    let flood = Flood { connections: 1, streams: 250, announced: 992, sent: Some(1), headers: 1 };
    for _ in 0..10 {
        held.spawn(hold_calls(server.address(), CHECK, flood));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    for _ in 0..20 {
        check_health(&server).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_strangers_at_the_address_of_a_load_balancer_leave_it_its_health_checks() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTIONS_PER_PEER_MAX", "128")
        .start()
        .await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(TcpStream::connect(server.address()).await.unwrap());
    }
    // For one second, a connection beyond the limit keeps its place. Then a health check may get the place.
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    for _ in 0..20 {
        check_health(&server).await.unwrap();
    }
}
