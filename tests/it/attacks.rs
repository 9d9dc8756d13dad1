//! Attacks on HTTP/2 with hand-made frames, while a well-behaved client resolves tokens.
//!
//! `KAIROS_ATTACK_SECONDS=60 cargo test --release --test it attacks` plays each for a minute; the suite for a moment.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kairos_identity::proto::ResolveTokenRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{engine::Engine, server::TestServer, tools::attack_seconds};

/// Connections that attack at once.
const ATTACKERS: usize = 8;

/// By how much an attack may make the service grow, in MiB.
const GROWTH_MAX_MIB: u64 = 64;

/// A peer that does not read for so long has been cut off, or had best begin anew.
const WRITE_LIMIT: Duration = Duration::from_millis(200);

/// Frames of RFC 9113, section 6.
mod frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;

    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    /// A frame as it goes over the wire.
    pub fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
}

/// The headers of a call, in HPACK's literals (RFC 7541, section 6.2.2).
fn headers_of_a_call() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [
        &[0x83, 0x86, 0x04][..],
        &text("/kairos.identity.v1.IdentityService/ResolveToken"),
        &[0x01],
        &text("localhost"),
        &[0x0f, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ]
    .concat()
}

fn call(stream: u32, flags: u8) -> Vec<u8> {
    frame::bytes(frame::HEADERS, frame::END_HEADERS | flags, stream, &headers_of_a_call())
}

/// What is sent for the `round`th time on a connection; streams have odd numbers that only grow.
type Attack = fn(round: u32) -> Vec<u8>;

/// CVE-2023-44487: a call that is given up at once.
fn rapid_reset(round: u32) -> Vec<u8> {
    let stream = 2 * round + 1;
    [call(stream, frame::END_STREAM), frame::bytes(frame::RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
        .concat()
}

/// CVE-2025-8671, "MadeYouReset": a call followed by a fault for which the server must reset it.
fn local_reset(round: u32) -> Vec<u8> {
    let stream = 2 * round + 1;
    [call(stream, 0), frame::bytes(frame::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
}

/// CVE-2024-27316 and its kin: headers that never end.
fn endless_continuation(round: u32) -> Vec<u8> {
    let field = [&[0x00, 1][..], b"x", &[100], &[b'y'; 100]].concat();
    if round == 0 {
        return frame::bytes(frame::HEADERS, 0, 1, &headers_of_a_call());
    }
    frame::bytes(frame::CONTINUATION, 0, 1, &field.repeat(100))
}

/// Headers that end, and are far longer than any may be.
fn huge_headers(round: u32) -> Vec<u8> {
    let field = [&[0x00, 1][..], b"x", &[100], &[b'y'; 100]].concat();
    let block = [headers_of_a_call(), field.repeat(150)].concat();
    let stream = 2 * round + 1;
    let begin = frame::bytes(frame::HEADERS, frame::END_STREAM, stream, &block);
    let go_on = frame::bytes(frame::CONTINUATION, 0, stream, &field.repeat(150));
    let end = frame::bytes(frame::CONTINUATION, frame::END_HEADERS, stream, &[]);
    [begin, go_on, end].concat()
}

/// CVE-2019-9515: each wants an acknowledgement that is never read.
fn settings_flood(_: u32) -> Vec<u8> {
    frame::bytes(frame::SETTINGS, 0, 0, &[]).repeat(100)
}

/// CVE-2019-9512: each wants an answer that is never read.
fn ping_flood(_: u32) -> Vec<u8> {
    frame::bytes(frame::PING, 0, 0, &[7; 8]).repeat(100)
}

/// CVE-2019-9518: frames that hold nothing.
fn empty_data_flood(round: u32) -> Vec<u8> {
    let begin = if round == 0 { call(1, 0) } else { Vec::new() };
    [begin, frame::bytes(frame::DATA, 0, 1, &[]).repeat(100)].concat()
}

/// CVE-2019-9513: priorities of streams that never come.
fn priority_flood(round: u32) -> Vec<u8> {
    frame::bytes(frame::PRIORITY, 0, 2 * round + 1, &[0, 0, 0, 0, 16]).repeat(100)
}

/// Calls whose bodies never come.
fn endless_bodies(round: u32) -> Vec<u8> {
    call(2 * round + 1, 0)
}

/// Bytes that are no frames.
fn garbage(round: u32) -> Vec<u8> {
    // xorshift: the same bytes each time.
    let mut state = u64::from(round) * 0x9e37_79b9 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..64).flat_map(|_| next()).collect()
}

/// Attacks on one connection after the other, without ever reading; gives how many were cut off.
async fn attack(address: SocketAddr, attack: Attack, stop: Arc<AtomicBool>) -> io::Result<u64> {
    let mut cut_off = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut socket = TcpStream::connect(address).await?;
        let begin =
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame::bytes(frame::SETTINGS, 0, 0, &[])].concat();
        let mut sent = socket.write_all(&begin).await;
        let mut round = 0;
        while sent.is_ok() && !stop.load(Ordering::Relaxed) {
            let bytes = attack(round);
            let write = tokio::time::timeout(WRITE_LIMIT, socket.write_all(&bytes)).await;
            sent = write.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            round += 1;
        }
        // A peer that only makes us wait has not cut us off.
        cut_off += u64::from(sent.is_err_and(|error| error.kind() != io::ErrorKind::TimedOut));
    }
    Ok(cut_off)
}

/// Plays an attack, and asserts what must hold meanwhile and afterwards; gives how many attackers were cut off.
async fn play(attack_with: Attack) -> u64 {
    let mut server = TestServer::start(Engine::Sqlite).await;
    let ada = server.newcomer("ada").await;
    let request = ResolveTokenRequest { auth_token: ada.auth_token };
    let mut client = server.client().await;
    for _ in 0..200 {
        client.resolve_token(request.clone()).await.unwrap();
    }
    let before_mib = server.resident_mib();

    let stop = Arc::new(AtomicBool::new(false));
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        attackers.spawn(attack(server.address(), attack_with, Arc::clone(&stop)));
    }
    let ends = Instant::now() + attack_seconds();
    let (mut answered, mut failed, mut peak_mib) = (0, 0, before_mib);
    while Instant::now() < ends {
        match client.resolve_token(request.clone()).await {
            Ok(_) => answered += 1,
            Err(_) => failed += 1,
        }
        peak_mib = peak_mib.max(server.resident_mib());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let cut_off: u64 = attackers.join_all().await.into_iter().map(Result::unwrap).sum();

    assert!(answered > 0 && failed * 1_000 <= answered, "{answered} answered, {failed} failed");
    assert!(peak_mib < before_mib + GROWTH_MAX_MIB, "from {before_mib} to {peak_mib} MiB");
    assert!(server.is_running());
    // Who comes afterwards is served too.
    server.client().await.resolve_token(request).await.unwrap();
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    cut_off
}

macro_rules! attacks {
    ($expect:expr; $($attack:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $attack() {
                let cut_off = super::play(super::$attack).await;
                let expect: fn(u64) -> bool = $expect;
                assert!(expect(cut_off), "{cut_off} attackers were cut off");
            }
        )+
    };
}

mod a_client_is_served_and_the_attacker_cut_off {
    attacks! { |cut_off| cut_off > 0; rapid_reset local_reset endless_continuation empty_data_flood garbage }
}

/// What a peer may do as often as the service has time for it.
mod a_client_is_served_while_the_attacker_waits_for_its_turn {
    attacks! { |_| true; huge_headers settings_flood ping_flood priority_flood endless_bodies }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_half_a_preface_are_gone_in_time() {
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_FIRST_BYTE_TIMEOUT", "1s")
        .start()
        .await;
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(b"PRI * HTTP/2.0").await.unwrap();
        }
        silent.push(socket);
    }
    let ada = server.newcomer("ada").await;
    let request = ResolveTokenRequest { auth_token: ada.auth_token };
    server.client().await.resolve_token(request).await.unwrap();

    let all_gone = async {
        for socket in &mut silent {
            // An end or a reset: both are gone.
            let _ = socket.read(&mut [0; 64]).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), all_gone).await.expect("they are gone");
}
