//! PostgreSQL servers with another isolation level, deadlocks, and tables that change while the service runs.

use std::{sync::Arc, time::Duration};

use kairos_identity::proto::ResolveTokenRequest;
use tokio::task::JoinSet;

use crate::support::{
    people::{PASSWORD, by_email, login, registration},
    postgres::{Postgres, PostgresDatabase},
    server::TestServer,
    tools::RACING_CALLS,
    wait::until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Logins of one user at the same time: fewer than the failures that lock an account, since each may become
/// one.
const CONCURRENT_LOGINS: usize = 4;

async fn right_logins_succeed(level: &str) {
    let cluster = Postgres::shared();
    let database = cluster.create_database();
    let alter = format!("ALTER DATABASE {} SET default_transaction_isolation = '{level}'", database.name());
    cluster.psql("postgres", &alter);
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let mut logins = JoinSet::new();
    for number in 0..4 {
        server.member(&format!("user{number}")).await;
        for _ in 0..CONCURRENT_LOGINS {
            let mut client = server.client().await;
            logins.spawn(async move {
                for _ in 0..10 {
                    client.login(login(&format!("user{number}"), PASSWORD)).await.unwrap();
                }
            });
        }
    }
    logins.join_all().await;
    assert_eq!(cluster.psql(database.name(), "SHOW default_transaction_isolation"), level);
}

#[tokio::test(flavor = "multi_thread")]
async fn right_logins_succeed_where_the_default_is_repeatable_read() {
    right_logins_succeed("repeatable read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_logins_succeed_where_the_default_is_serializable() {
    right_logins_succeed("serializable").await;
}

/// Runs SQL in a thread of its own.
fn in_background(
    cluster: &Arc<Postgres>,
    database: &PostgresDatabase,
    sql: &'static str,
) -> std::thread::JoinHandle<String> {
    let (cluster, name) = (Arc::clone(cluster), database.name().to_owned());
    std::thread::spawn(move || cluster.psql(&name, sql))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_loses_a_deadlock_is_repeated() {
    let cluster = Arc::new(Postgres::own());
    let database = cluster.create_database();
    // Longer than a busy machine needs for the steps below.
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "20s")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
        .start()
        .await;
    server.member("ada").await;
    // The login has locked its user and says so with lock 3. It takes lock 2 once the other transaction,
    // which has that one, waits for the user: PostgreSQL looks for a deadlock a second later, and only once.
    cluster.psql(
        database.name(),
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_xact_lock(3); \
         WHILE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND granted) \
         AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted) \
         LOOP PERFORM pg_sleep(0.02); END LOOP; \
         PERFORM pg_advisory_xact_lock(2); RETURN new; END $$; \
         CREATE TRIGGER wait BEFORE INSERT ON core_session FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let mut client = server.client().await;

    let other = in_background(
        &cluster,
        &database,
        "SET deadlock_timeout = '1min'; BEGIN; SELECT pg_advisory_xact_lock(2); \
         DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 3 AND granted) \
         LOOP PERFORM pg_sleep(0.02); END LOOP; END $$; \
         UPDATE core_user SET username = username; COMMIT",
    );
    until("the other transaction has the lock", LIMIT, async || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND granted";
        (cluster.psql("postgres", locks) == "1").then_some(())
    })
    .await;
    client.login(login("ada", PASSWORD)).await.unwrap();
    other.join().unwrap();

    let deadlocks = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'", database.name());
    until("a deadlock is counted", LIMIT, async || {
        (cluster.psql("postgres", &deadlocks) == "1").then_some(())
    })
    .await;
    assert_eq!(cluster.psql(database.name(), "SELECT count(*) FROM core_session"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_after_a_table_was_altered() {
    let cluster = Postgres::shared();
    let database = cluster.create_database();
    // Longer than a busy machine needs for all calls of a round.
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
        .start()
        .await;
    let ada = server.member("ada").await;

    for length in 151..=153 {
        // Enough calls to prepare the statements on several connections.
        let mut calls = JoinSet::new();
        for number in 0..RACING_CALLS {
            let (mut client, ada) = (server.client().await, ada.clone());
            calls.spawn(async move {
                let resolve = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
                client.resolve_token(resolve).await.unwrap();
                client.find_user(by_email(&ada.email)).await.unwrap();
                if number < CONCURRENT_LOGINS {
                    client.login(login("ada", PASSWORD)).await.unwrap();
                }
                client.register(registration(&format!("user{length}x{number}"))).await.unwrap();
            });
        }
        calls.join_all().await;
        let alter = format!("ALTER TABLE core_user ALTER COLUMN username TYPE varchar({length})");
        cluster.psql(database.name(), &alter);
    }
}
