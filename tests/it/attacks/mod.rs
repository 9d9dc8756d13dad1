//! Attacks with hand-made frames and connections, while a well-behaved client resolves tokens: it is served, the memory stays within
//! its bound and comes back.
//!
//! `KAIROS_ATTACK_SECONDS=60 scripts/test --release --test it attacks -- --test-threads 1 --nocapture` plays each for a minute and
//! prints a line of figures; the suite plays each for a moment.

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

/// Connections that attack at once.
const ATTACKERS: usize = 8;

/// A peer that does not read for so long has been cut off, or had best begin anew.
const WRITE_LIMIT: Duration = Duration::from_millis(200);

/// Attacks on one connection after the other, without ever reading; gives how many were cut off.
async fn attack(address: SocketAddr, attack: Attack, stop: Stop) -> u64 {
    let mut cut_off = 0;
    while !stop.is_set() {
        let Ok(mut socket) = TcpStream::connect(address).await else { continue };
        let mut sent = socket.write_all(&frame::preface()).await;
        let mut round = 0;
        while sent.is_ok() && !stop.is_set() {
            let bytes = attack(round);
            let write = tokio::time::timeout(WRITE_LIMIT, socket.write_all(&bytes)).await;
            sent = write.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            round += 1;
            // The client runs here too.
            tokio::task::yield_now().await;
        }
        // A peer that only makes us wait has not cut us off.
        cut_off += u64::from(sent.is_err_and(|error| error.kind() != io::ErrorKind::TimedOut));
    }
    cut_off
}

async fn play(name: &str, attack_with: Attack) -> u64 {
    let attackers = |address, stop: &Stop| {
        let mut attackers = JoinSet::new();
        for _ in 0..ATTACKERS {
            attackers.spawn(attack(address, attack_with, stop.clone()));
        }
        attackers
    };
    Scene::plain(|server| server).await.play(name, attackers).await
}

macro_rules! attacks {
    ($expect:expr; $($attack:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $attack() {
                let name = stringify!($attack).replace('_', " ");
                let cut_off = super::play(&name, super::floods::$attack).await;
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
    attacks! { |_| true;
        huge_headers settings_flood ping_flood priority_flood endless_bodies decompression_bombs announced_and_never_sent
    }
}
