//! Connections for their own sake: many, silent, slow.

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

/// How many connections one attacker tries to have.
const TEN_THOUSAND: usize = 10_000;

/// How many are silent, or slow.
const SLOW: usize = 500;

/// Between two bytes of somebody slow.
const BYTE_PAUSE: Duration = Duration::from_millis(100);

/// So that a test need not wait for the ten seconds that these are.
fn impatient(server: Builder) -> Builder {
    server
        .with_env("KAIROS_IDENTITY_SERVER_FIRST_BYTE_TIMEOUT", "1s")
        .with_env("KAIROS_IDENTITY_SERVER_TLS_HANDSHAKE_TIMEOUT", "1s")
}

/// A connection from `from`, an address of loopback.
async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(from), 0).into())?;
    socket.connect(to).await
}

/// Sends one byte after the other until it is cut off or all are sent, then waits to be cut off.
async fn trickle(address: SocketAddr, bytes: &[u8], stop: &Stop) -> io::Result<u64> {
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
    // An end or a reset: both are the end of it.
    let _ = socket.read(&mut [0; 64]).await;
    Ok(1)
}

/// Crowds of slow peers, one after the other, who send the beginning of `bytes`.
fn slow_crowds(address: SocketAddr, bytes: &[u8], stop: &Stop) -> JoinSet<u64> {
    let mut crowd = JoinSet::new();
    for number in 0..SLOW {
        let (bytes, stop) = (bytes[..bytes.len() * (number % 4) / 4].to_vec(), stop.clone());
        crowd.spawn(async move {
            let mut cut_off = 0;
            while !stop.is_set() {
                cut_off += trickle(address, &bytes, &stop).await.unwrap_or(0);
            }
            cut_off
        });
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_say_nothing_or_half_a_preface_are_cut_off() {
    let scene = Scene::plain(impatient).await;
    let slow = |address, stop: &Stop| slow_crowds(address, &frame::preface()[..20], stop);
    assert!(scene.play("slow prefaces", slow).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_finish_a_handshake_are_cut_off() {
    let scene = Scene::tls(impatient).await;
    // A ClientHello of 512 bytes, of which the beginning comes (RFC 8446, section 5.1).
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 32]].concat();
    let slow = move |address, stop: &Stop| slow_crowds(address, &hello, stop);
    assert!(scene.play("slow TLS handshakes", slow).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_may_open_no_more_files_serves_who_is_there_and_others_again_later() {
    let mut scene = Scene::plain(|server| server).await;
    scene.server().limit_open_files(Some(5));
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(connect(Ipv4Addr::LOCALHOST, scene.address()).await.unwrap());
    }
    for _ in 0..100 {
        assert!(scene.call().await.is_some(), "who is there is served");
    }
    assert!(!scene.call_anew().await, "nobody else is: the limit holds");
    assert!(scene.server().log().contains("A connection could not be accepted"));

    scene.server().limit_open_files(None);
    drop(crowd);
    until("others are served again", Duration::from_secs(15), async || scene.call_anew().await.then_some(()))
        .await;
}

/// Holds as many connections as it may, each with the preface of HTTP/2, and asks for more all the time.
async fn hoard(from: Ipv4Addr, address: SocketAddr, connections: usize, stop: Stop) -> u64 {
    let mut held = JoinSet::new();
    let mut cut_off = 0;
    for _ in 0..connections {
        let Ok(mut socket) = connect(from, address).await else { continue };
        let stop = stop.clone();
        held.spawn(async move {
            let mut bytes = [0; 1_024];
            let _ = socket.write_all(&frame::preface()).await;
            loop {
                // Settings and pings, or nothing yet: it is still there.
                if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(BYTE_PAUSE, socket.read(&mut bytes)).await {
                    return 1;
                }
                if stop.is_set() {
                    return 0;
                }
            }
        });
        while let Some(ended) = held.try_join_next() {
            cut_off += ended.unwrap_or_default();
        }
    }
    cut_off + held.join_all().await.into_iter().sum::<u64>()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_of_one_address_leave_room_for_others() {
    let scene = Scene::plain(|server| server).await;
    let hoarder = |address, stop: &Stop| {
        let mut hoarders = JoinSet::new();
        hoarders.spawn(hoard(Ipv4Addr::LOCALHOST, address, TEN_THOUSAND, stop.clone()));
        hoarders
    };
    let cut_off = scene.play("ten thousand connections", hoarder).await;
    assert!(cut_off >= 8_000, "only a thousand of one address stay, not {cut_off} less than ten thousand");
}
