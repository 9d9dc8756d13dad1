//! A PostgreSQL server that admits fewer connections than the service opens.

use tokio::task::JoinSet;

use crate::support::{
    people::{PASSWORD, login},
    postgres::Postgres,
    server::TestServer,
};

/// More logins than [`ADMITTED`], so that some of them find no connection, and fewer than the attempts that
/// one account may have in progress.
const LOGINS: usize = 9;

/// Fewer connections than `database.pool-size`.
const ADMITTED: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_a_connection_if_the_role_may_have_no_more() {
    let (database, url) = Postgres::shared().create_database_of("few_connections");
    Postgres::shared()
        .psql(database.name(), &format!("ALTER ROLE few_connections CONNECTION LIMIT {ADMITTED}"));
    let server = TestServer::on_url(url).with_env("KAIROS_IDENTITY_SERVER_THREADS", "2").start().await;
    server.member("ada").await;

    let mut logins = JoinSet::new();
    for _ in 0..LOGINS {
        let mut client = server.client().await;
        logins.spawn(async move { client.login(login("ada", PASSWORD)).await });
    }
    for answer in logins.join_all().await {
        answer.unwrap();
    }
    server.logged("PostgreSQL admits 5 connections (the limit of the role few_connections)").await;
    server.logged("ALTER ROLE few_connections CONNECTION LIMIT 22").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_limit_causes_no_warning() {
    let (_database, url) = Postgres::shared().create_database_of("many_connections");
    let server = TestServer::on_url(url).start().await;
    assert!(!server.log().contains("PostgreSQL admits"), "{}", server.log());
}
