//! Calls without a token from the address of an authenticated caller, as from a process on the same machine
//! or behind the same NAT: they must not take what the caller needs.

use std::time::{Duration, Instant};

use kairos_identity::proto::{ResolveTokensRequest, identity_service_client::IdentityServiceClient};
use tokio::task::JoinSet;

use super::memory::{Flood, hold_calls};
use crate::support::{
    callers::{Bearer, CallersFile, token},
    engine::Engine,
};

/// Time for which the caller calls.
const CALLED: Duration = Duration::from_secs(2);

/// The longest list that `ResolveTokens` accepts: its message does not fit into one frame, so the call waits
/// for the rest of it.
const TOKENS: usize = 1_000;

/// Holds unfinished calls of a path that needs no token, and meanwhile calls with a token.
async fn assert_caller_is_served(flood: Flood) {
    let bff = token(1);
    let callers = CallersFile::new(&[("bff", &bff, "*", "*")]);
    let server = callers.serve(Engine::Sqlite).await;
    let mut strangers = JoinSet::new();
    for _ in 0..flood.connections {
        strangers.spawn(hold_calls(server.address(), "/grpc.health.v1.Health/Check", flood));
    }
    // Wait until the strangers have used up what they may hold.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let mut caller = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(bff)));
    let ends = Instant::now() + CALLED;
    let mut calls = 0;
    while Instant::now() < ends {
        let auth_tokens = vec![uuid::Uuid::from_u128(1).to_string(); TOKENS];
        caller.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.unwrap();
        calls += 1;
    }
    println!("{calls} calls of the caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_of_strangers_leave_room_for_those_of_a_caller() {
    // The announced length is nearly the longest that the health service accepts (1 KiB).
    let flood = Flood { connections: 2, streams: 250, announced: 992, sent: Some(1), headers: 1 };
    assert_caller_is_served(flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_strangers_leave_room_for_those_of_a_caller() {
    // 2,500 calls: more than one peer may have in flight (`server.calls-per-peer-max`).
    let flood = Flood { connections: 10, streams: 250, announced: 992, sent: Some(1), headers: 1 };
    assert_caller_is_served(flood).await;
}
