//! Calls over HTTP/1.1 on the API port that never end, are costly to parse, or are never read.

use tokio::task::JoinSet;

use super::{
    WRITE_LIMIT, attack,
    scene::{Scene, Stop},
};

const RESOLVE: &str = "/kairos.identity.v1.IdentityService/ResolveToken";
const LOGIN: &str = "/kairos.identity.v1.IdentityService/Login";

/// Nearly as long as a message may be (`server.message-bytes-max`).
const LONG_BYTES: usize = 60_000;

/// Returns the head of a call with JSON, with the headers `framing`.
fn head(path: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: kairos.test\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
}

/// Returns a whole call.
fn call(path: &str, body: &str) -> String {
    head(path, &format!("Content-Length: {}", body.len())) + body
}

/// Returns the attacks: how a connection begins, and what is sent again and again.
fn attacks() -> Vec<(String, String)> {
    let spaces = " ".repeat(1_024);
    let unknown = r#"{"authToken": "3fbf2702-352c-4d48-a5e5-56a4d16d9f56"}"#;
    let deep = r#"{"email":"#.repeat(LONG_BYTES / 9);
    let twice = format!("{{{}\"email\": \"\"}}", "\"email\": \"\", ".repeat(LONG_BYTES / 14));
    let smuggled = head(RESOLVE, "Content-Length: 4\r\nTransfer-Encoding: chunked") + "0\r\n\r\n";
    vec![
        (head(RESOLVE, "Transfer-Encoding: chunked"), format!("400\r\n{spaces}\r\n")),
        (head(LOGIN, "Transfer-Encoding: chunked"), "1\r\n \r\n".to_owned()),
        (head(RESOLVE, "Content-Length: 4194304"), spaces),
        (format!("POST {RESOLVE} HTTP/1.1\r\n"), "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".to_owned()),
        (String::new(), call(RESOLVE, unknown).repeat(100)),
        (String::new(), call(LOGIN, &deep)),
        (String::new(), call(LOGIN, &twice)),
        (String::new(), smuggled + &call(RESOLVE, unknown)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_served_during_endless_and_costly_calls_over_http1() {
    let attackers = |address, stop: &Stop| {
        let mut attackers = JoinSet::new();
        for (begin, part) in attacks() {
            let (stop, part) = (stop.clone(), part.into_bytes());
            attackers.spawn(attack(
                address,
                begin.into_bytes(),
                move |_| part.clone(),
                WRITE_LIMIT,
                move |_| stop.is_set(),
            ));
        }
        attackers
    };
    let disconnected = Scene::plain(|server| server).await.run_attack("calls over HTTP/1.1", attackers).await;
    assert!(disconnected > 0, "no connection of an attacker was closed");
}
