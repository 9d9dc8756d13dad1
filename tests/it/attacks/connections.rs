//! Attacks with connections alone: many, silent or slow ones.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{
    frame,
    scene::{Scene, Stop},
};
use crate::support::{server::Builder, wait::until};

/// Number of connections that one attacker tries to open.
const CONNECTIONS_TRIED: usize = 10_000;

/// Number of silent and slow peers.
const SLOW_PEERS: usize = 500;

/// Time within which the service closes a connection that exceeds a limit, even if the machine is busy.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Pause of a slow peer between two bytes.
const BYTE_PAUSE: Duration = Duration::from_millis(100);

/// Sets the timeouts for the first byte and the TLS handshake to 1 s instead of the default 10 s, so that the
/// tests are fast.
fn with_short_timeouts(server: Builder) -> Builder {
    server
        .with_env("KAIROS_IDENTITY_SERVER_FIRST_BYTE_TIMEOUT", "1s")
        .with_env("KAIROS_IDENTITY_SERVER_TLS_HANDSHAKE_TIMEOUT", "1s")
}

/// Connects from the loopback address `from`.
async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Ports of connections that other attacks have closed can be used again at once.
    socket.set_reuseaddr(true)?;
    socket.bind((IpAddr::V4(from), 0).into())?;
    socket.connect(to).await
}

/// Sends one byte after the other, then waits until the service closes the connection. Returns 1 if the
/// service closed it, or 0 if the attack ended while bytes were sent.
async fn send_slowly(address: SocketAddr, bytes: &[u8], stop: &Stop) -> io::Result<u64> {
    let mut socket = connect(Ipv4Addr::LOCALHOST, address).await?;
    for byte in bytes {
        tokio::time::sleep(BYTE_PAUSE).await;
        if stop.is_set() {
            return Ok(0);
        }
        if socket.write_all(&[*byte]).await.is_err() {
            return Ok(1);
        }
    }
    // The end of the stream and a reset both mean that the connection is closed.
    let _ = socket.read(&mut [0; 64]).await;
    Ok(1)
}

/// Starts [`SLOW_PEERS`] peers. Each opens one connection after the other and slowly sends none, one, two or
/// three quarters of `bytes`. Each returns how often it was disconnected.
fn slow_peers(address: SocketAddr, bytes: &[u8], stop: &Stop) -> JoinSet<u64> {
    let mut peers = JoinSet::new();
    for number in 0..SLOW_PEERS {
        let (bytes, stop) = (bytes[..bytes.len() * (number % 4) / 4].to_vec(), stop.clone());
        peers.spawn(async move {
            let mut disconnected = 0;
            while !stop.is_set() {
                disconnected += send_slowly(address, &bytes, &stop).await.unwrap_or(0);
            }
            disconnected
        });
    }
    peers
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_send_nothing_or_part_of_a_preface_are_disconnected() {
    let scene = Scene::plain(with_short_timeouts).await;
    let slow = |address, stop: &Stop| slow_peers(address, &frame::preface()[..20], stop);
    assert!(scene.run_attack("slow prefaces", slow).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_finish_a_tls_handshake_are_disconnected() {
    let scene = Scene::tls(with_short_timeouts).await;
    // The beginning of a record that announces a ClientHello of 512 bytes (RFC 8446, section 5.1).
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 32]].concat();
    let slow = move |address, stop: &Stop| slow_peers(address, &hello, stop);
    assert!(scene.run_attack("slow TLS handshakes", slow).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_open_connections_and_later_new_ones_are_served() {
    let mut scene = Scene::plain(|server| server).await;
    scene.server().limit_open_files(Some(5));
    let mut connections = Vec::new();
    for _ in 0..50 {
        connections.push(connect(Ipv4Addr::LOCALHOST, scene.address()).await.unwrap());
    }
    for _ in 0..100 {
        assert!(scene.call().await.is_some(), "the open connection is served");
    }
    assert!(!scene.call_on_new_connection().await, "no new connection is served while the limit holds");
    assert!(scene.server().log().contains("Accepting a connection failed"));

    scene.server().limit_open_files(None);
    drop(connections);
    until("a new connection is served again", Duration::from_secs(15), async || {
        scene.call_on_new_connection().await.then_some(())
    })
    .await;
}

/// A call over HTTP/1.1, after which the connection stays open.
const HTTP1_CALL: &[u8] = b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: kairos.test\r\n\
    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Opens `connections` connections one after the other, sends the HTTP/2 preface or a call over HTTP/1.1 on
/// each in turn, and holds those that the service accepts until all are opened and the attack is over.
/// Returns how many the service closed.
async fn hold_connections(from: Ipv4Addr, address: SocketAddr, connections: usize, stop: Stop) -> u64 {
    let mut held = JoinSet::new();
    let mut disconnected = 0;
    // A connection that closed at the end of the attack would free its place for one that is not opened yet.
    let all_opened = Stop::default();
    for number in 0..connections {
        let Ok(mut socket) = connect(from, address).await else { continue };
        let (stop, all_opened) = (stop.clone(), all_opened.clone());
        let begin = if number % 2 == 0 { frame::preface() } else { HTTP1_CALL.to_vec() };
        held.spawn(async move {
            let mut bytes = [0; 1_024];
            let _ = socket.write_all(&begin).await;
            loop {
                // SETTINGS, a PING, the answer or a timeout mean that the connection is still open.
                let is_last = stop.is_set() && all_opened.is_set();
                let limit = if is_last { CLOSE_LIMIT } else { BYTE_PAUSE };
                if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(limit, socket.read(&mut bytes)).await {
                    return 1;
                }
                if is_last {
                    return 0;
                }
            }
        });
        while let Some(ended) = held.try_join_next() {
            disconnected += ended.unwrap_or_default();
        }
    }
    all_opened.set();
    disconnected + held.join_all().await.into_iter().sum::<u64>()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_of_one_address_do_not_lock_out_other_addresses() {
    let scene = Scene::plain(|server| server).await;
    let attack = |address, stop: &Stop| {
        let mut attackers = JoinSet::new();
        attackers.spawn(hold_connections(Ipv4Addr::LOCALHOST, address, CONNECTIONS_TRIED, stop.clone()));
        attackers
    };
    let disconnected = scene.run_attack("ten thousand connections", attack).await;
    // The service keeps 1,000 connections of one address (`server.connections-per-peer-max`), so it closes
    // about 9,000. Some of the ten thousand may not have been opened.
    assert!(
        disconnected >= 8_000,
        "only {disconnected} of ten thousand connections of one address were closed"
    );
}
