//! Requests to the HTTP port that are never finished: to a page, to the public keys, and to an unknown path.
//! Meanwhile the well-behaved client of [`Scene`] must be served, and the memory must stay within its limit.

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::timeout};

use super::{
    WRITE_LIMIT, attack,
    memory::assert_growth_is_limited,
    scene::{Scene, Stop},
};
use crate::support::{engine::Engine, server::TestServer};

/// Paths of a page, of the public keys, and an unknown one.
const PATHS: [&str; 3] = ["/reset-password", "/.well-known/jwks.json", "/unknown"];

/// Runs an attack with requests that begin with `begin`, after which `part` is sent again and again.
async fn run_attack(name: &str, begin: impl Fn(&str) -> String, part: &'static [u8]) {
    let scene = Scene::plain(|server| server).await;
    let http = scene.server().http_address();
    let attackers = |_, stop: &Stop| {
        let mut attackers = JoinSet::new();
        for path in PATHS.iter().cycle().take(9) {
            let stop = stop.clone();
            let begin = begin(path).into_bytes();
            attackers.spawn(attack(http, begin, |_| part.to_vec(), WRITE_LIMIT, move |_| stop.is_set()));
        }
        attackers
    };
    scene.run_attack(name, attackers).await;
}

/// Returns the head of a request with a long body.
fn head(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: kairos.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 4194304\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_served_during_endless_bodies() {
    run_attack("endless bodies of HTTP requests", head, &[b'x'; 1_024]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_of_one_peer_occupy_little_memory() {
    for path in PATHS {
        let server = TestServer::start(Engine::Sqlite).await;
        let before = server.resident_mib();
        let mut held = Vec::new();
        // The service closes the connections that exceed its limit for one peer.
        for _ in 0..300 {
            let mut socket = TcpStream::connect(server.http_address()).await.unwrap();
            let request = [head(path).into_bytes(), vec![b'x'; 64 * 1_024]].concat();
            let _ = timeout(WRITE_LIMIT, socket.write_all(&request)).await;
            held.push(socket);
        }
        assert_growth_is_limited(&server, before, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_served_during_endless_chunks() {
    let begin = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: kairos.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
    };
    run_attack("endless chunks of HTTP requests", begin, b"1\r\nx\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_served_during_endless_heads() {
    let begin = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: kairos.test\r\n");
    run_attack("endless heads of HTTP requests", begin, b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await;
}
