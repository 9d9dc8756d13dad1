//! Attacks with hand-made frames and connections. During each attack a well-behaved client resolves tokens:
//! its calls must be answered, and the memory of the service must stay within a limit and shrink again
//! afterwards.
//!
//! `KAIROS_ATTACK_SECONDS=60 scripts/test --release --test it attacks -- --test-threads 1 --nocapture` runs
//! each attack for a minute and prints a line of figures. Without the variable each attack runs for 2 s.

mod connections;
mod floods;
mod frame;
mod scene;

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use self::{
    floods::Attack,
    scene::{Scene, Stop},
};

/// Number of concurrent attacking connections.
const ATTACKERS: usize = 8;

/// Time limit for a write. If the service does not read for so long, the attacker opens a new connection.
const WRITE_LIMIT: Duration = Duration::from_millis(200);

/// Attacks on one connection after the other, without ever reading. Returns how many connections the service
/// closed.
async fn attack(address: SocketAddr, attack: Attack, stop: Stop) -> u64 {
    let mut disconnected = 0;
    while !stop.is_set() {
        let Ok(mut socket) = TcpStream::connect(address).await else { continue };
        let mut sent = socket.write_all(&frame::preface()).await;
        let mut round = 0;
        while sent.is_ok() && !stop.is_set() {
            let bytes = attack(round);
            let write = tokio::time::timeout(WRITE_LIMIT, socket.write_all(&bytes)).await;
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

/// Runs one attack on [`ATTACKERS`] connections. Returns how often the service closed one of them.
async fn run_attack(name: &str, attack_with: Attack) -> u64 {
    let attackers = |address, stop: &Stop| {
        let mut attackers = JoinSet::new();
        for _ in 0..ATTACKERS {
            attackers.spawn(attack(address, attack_with, stop.clone()));
        }
        attackers
    };
    Scene::plain(|server| server).await.run_attack(name, attackers).await
}

/// The service must close connections of these attackers.
fn assert_disconnected(disconnected: u64) {
    assert!(disconnected > 0, "no attacker was disconnected");
}

/// These attackers break no rule of HTTP/2, so the service may close their connections or keep them.
fn may_stay_connected(_disconnected: u64) {}

/// One test per attack. [`run_attack`] asserts that the client is served and that the memory stays limited;
/// `$check` judges how many attacking connections the service closed.
macro_rules! attacks {
    ($check:path; $($attack:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $attack() {
                let name = stringify!($attack).replace('_', " ");
                $check(super::run_attack(&name, super::floods::$attack).await);
            }
        )+
    };
}

mod the_client_is_served_and_the_attacker_is_disconnected {
    attacks! { super::assert_disconnected;
        rapid_reset local_reset endless_continuation empty_data_flood garbage
    }
}

mod the_client_is_served_even_if_the_attacker_stays_connected {
    attacks! { super::may_stay_connected;
        huge_headers settings_flood ping_flood priority_flood endless_bodies decompression_bombs announced_and_never_sent
    }
}
