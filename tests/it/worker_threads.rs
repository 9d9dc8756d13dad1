//! The threads that serve the API port.

use std::{fs, thread};

use kairos_identity::proto::{ResolveTokenRequest, ResolveTokensRequest};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{engine::Engine, server::TestServer};

/// Returns the number of the server's threads that serve connections.
fn serving_threads(server: &TestServer) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process_id())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    names.filter(|name| name.starts_with("serve-")).count()
}

async fn start(engine: Engine, threads: &str, lanes: &str) -> TestServer {
    let builder = TestServer::builder(engine).with_env("KAIROS_IDENTITY_SERVER_THREADS", threads);
    builder.with_env("KAIROS_IDENTITY_LOOKUP_LANES", lanes).start().await
}

/// Looks up one of the server's users and an unknown one on each of eight connections, which are distributed
/// among all threads.
async fn look_up_on_eight_connections(server: &TestServer) {
    let ada = server.unverified_user("ada").await;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (mut client, ada) = (server.client().await, ada.clone());
        callers.spawn(async move {
            for _ in 0..20 {
                let unknown = Uuid::from_u128(7).to_string();
                let one = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
                let auth_tokens = vec![unknown.clone(), ada.auth_token.clone()];
                assert_eq!(client.resolve_token(one).await.unwrap().into_inner().user.as_ref(), Some(&ada));
                let both =
                    client.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.unwrap().into_inner();
                assert_eq!((both.users, both.unknown_auth_tokens), (vec![ada.clone()], vec![unknown]));
            }
        });
    }
    callers.join_all().await;
}

on_both_engines! {
    async fn there_is_one_thread_for_each_core(engine: Engine) {
        let server = start(engine, "0", "0").await;
        assert_eq!(serving_threads(&server), thread::available_parallelism().unwrap().get());
        look_up_on_eight_connections(&server).await;
    }

    async fn look_ups_of_more_threads_than_lanes_are_answered(engine: Engine) {
        let server = start(engine, "5", "2").await;
        assert_eq!(serving_threads(&server), 5);
        look_up_on_eight_connections(&server).await;
    }

    async fn look_ups_of_fewer_threads_than_lanes_are_answered(engine: Engine) {
        let server = start(engine, "2", "5").await;
        assert_eq!(serving_threads(&server), 2);
        look_up_on_eight_connections(&server).await;
    }
}
