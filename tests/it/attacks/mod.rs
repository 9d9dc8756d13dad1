//! Attacks with hand-made frames and connections. During each attack a well-behaved client resolves tokens:
//! its calls must be answered, and the memory of the service must stay within a limit and shrink again
//! afterwards.
//!
//! `KAIROS_ATTACK_SECONDS=60 scripts/test --release --test it attacks -- --test-threads 1 --nocapture` runs
//! each attack for a minute and prints a line of figures. Without the variable each attack runs for 2 s.

mod connections;
mod floods;
pub mod frame;
mod header_lists;
mod http1_calls;
mod http_port;
mod memory;
mod resets;
mod scene;
mod shared_address;
mod shares;
mod unread;
mod waiting;
mod watches;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use self::{
    floods::Attack,
    scene::{Scene, Stop},
};

/// Number of concurrent attacking connections.
const ATTACKERS: usize = 8;

/// Time limit for a write. If the service does not read for so long, the attacker opens a new connection.
const WRITE_LIMIT: Duration = Duration::from_millis(200);

/// One path of each class: of the API, of health, of reflection, and an unknown one. Each attack is made
/// against each of them.
pub const PATHS: [&str; 4] = [
    "/kairos.identity.v1.IdentityService/ResolveToken",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/unknown.Service/Method",
];

/// Time within which the service must disconnect an attacker, even if the machine is busy. An attacker that
/// must be disconnected keeps each connection until then.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Attacks on one connection after the other, without ever reading: sends `begin` and then the bytes of each
/// round, until `is_over` with the number of connections that the service has closed. Returns that number.
async fn attack(
    address: SocketAddr,
    begin: Vec<u8>,
    round_of: impl Fn(u32) -> Vec<u8>,
    write_limit: Duration,
    is_over: impl Fn(u64) -> bool,
) -> u64 {
    let mut disconnected = 0;
    while !is_over(disconnected) {
        let Ok(mut socket) = TcpStream::connect(address).await else { continue };
        let mut sent = socket.write_all(&begin).await;
        let mut round = 0;
        while sent.is_ok() && !is_over(disconnected) {
            let bytes = round_of(round);
            let write = tokio::time::timeout(write_limit, socket.write_all(&bytes)).await;
            sent = write.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            round += 1;
            // The client shares these threads.
            tokio::task::yield_now().await;
        }
        // A write that timed out does not mean that the service closed the connection.
        disconnected += u64::from(sent.is_err_and(|error| error.kind() != io::ErrorKind::TimedOut));
    }
    disconnected
}

/// Runs one attack on [`ATTACKERS`] connections, with the same number on each of [`PATHS`]. If the attackers
/// must be disconnected, asserts that the service closes a connection of each.
async fn run_attack(name: &str, attack_with: Attack, must_be_disconnected: bool) {
    let attackers = |address, stop: &Stop| {
        let mut attackers = JoinSet::new();
        for path in PATHS.into_iter().cycle().take(ATTACKERS) {
            let stop = stop.clone();
            attackers.spawn(async move {
                let began = Instant::now();
                let is_over = |disconnected| {
                    let must_continue = must_be_disconnected && disconnected == 0;
                    stop.is_set() && (!must_continue || began.elapsed() > DISCONNECT_LIMIT)
                };
                let write_limit = if must_be_disconnected { DISCONNECT_LIMIT } else { WRITE_LIMIT };
                let round = |round| attack_with(round, path);
                let disconnected = attack(address, frame::preface(), round, write_limit, is_over).await;
                assert!(disconnected > 0 || !must_be_disconnected, "{path}: no attacker was disconnected");
                disconnected
            });
        }
        attackers
    };
    Scene::plain(|server| server).await.run_attack(name, attackers).await;
}

/// One test per attack. [`run_attack`] asserts that the client is served, that the memory stays limited and,
/// if this is required, that every attacker is disconnected.
macro_rules! attacks {
    (must_be_disconnected = $must_be_disconnected:literal; $($attack:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $attack() {
                let name = stringify!($attack).replace('_', " ");
                super::run_attack(&name, super::floods::$attack, $must_be_disconnected).await;
            }
        )+
    };
}

mod the_client_is_served_and_the_attacker_is_disconnected {
    attacks! { must_be_disconnected = true;
        rapid_reset local_reset endless_continuation empty_data_flood garbage
    }
}

/// These attackers break no rule of HTTP/2, so the service may close their connections or keep them.
mod the_client_is_served_even_if_the_attacker_stays_connected {
    attacks! { must_be_disconnected = false;
        huge_headers settings_flood ping_flood priority_flood endless_bodies decompression_bombs announced_and_never_sent
    }
}
