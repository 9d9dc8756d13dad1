//! Commits that wait for a synchronous standby that is gone.

use std::time::{Duration, Instant};

use kairos_identity::proto::ResolveTokenRequest;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    errors::assert_refused,
    people::{by_email, registration},
    postgres::Postgres,
    server::TestServer,
    wait::until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// The most writes that hang at a time: more than the connections of the largest pool here.
const WRITES: usize = 40;

/// Returns the most connections that the service has to the database: `pool_size` for writes, an eighth more
/// for other statements, and one for each of the two look-up lanes.
fn connections_max(pool_size: usize) -> usize {
    pool_size + (pool_size / 8).max(2) + 2
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_commits_hang_and_writes_recover_afterwards() {
    // The default.
    while_commits_hang(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_commits_hang_on_all_of_few_connections() {
    for pool_size in [1, 2, 4] {
        while_commits_hang(pool_size).await;
    }
}

async fn while_commits_hang(pool_size: usize) {
    let cluster = Postgres::own();
    let database = cluster.create_database();
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_DATABASE_POOL_SIZE", &pool_size.to_string())
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "500ms")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "500ms")
        .start()
        .await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    cluster.set("synchronous_standby_names", "nobody");

    // Two rounds: the second one begins when the callers of the first have their errors.
    for round in 0..2 {
        let mut writes = JoinSet::new();
        for number in 0..WRITES {
            let mut client = server.client().await;
            writes.spawn(async move { client.register(registration(&format!("u{round}x{number}"))).await });
        }
        while !writes.is_empty() {
            let began = Instant::now();
            let resolve = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
            client.resolve_token(resolve).await.unwrap();
            client.find_user(by_email(&ada.email)).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            while let Some(written) = writes.try_join_next() {
                assert_refused(&written.unwrap().unwrap_err(), Code::Unavailable, "STORE_UNAVAILABLE");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kairos-identity'";
    let connections: usize = cluster.psql("postgres", count).parse().unwrap();
    assert!(connections <= connections_max(pool_size), "{connections} connections");

    cluster.set("synchronous_standby_names", "");
    until("a registration succeeds", LIMIT, async || client.register(registration("bob")).await.ok()).await;
}
