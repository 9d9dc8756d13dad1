//! Read URLs that are wrong: of another database, of the primary itself, or of no server.

use super::{LIMIT, pair::Pair, resolve};
use crate::support::{server::TestServer, wait::until};

#[tokio::test(flavor = "multi_thread")]
async fn another_database_of_the_right_cluster_is_not_used() {
    let pair = Pair::new();
    let other = pair.primary.create_database();
    let mut server = TestServer::on_url(pair.database.url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    // The other database is a copy with the same user, and in use.
    server.kill_9();
    pair.primary.psql("postgres", &format!("DROP DATABASE {}", other.name()));
    let copy = format!("CREATE DATABASE {} TEMPLATE {}", other.name(), pair.database.name());
    pair.primary.psql("postgres", &copy);
    let _other = server.second_instance_on(other.url()).await;
    pair.primary.psql(pair.database.name(), "UPDATE core_user SET username = 'Ada2'");
    pair.replica.catch_up(&pair.primary);

    let misconfigured = server
        .second_instance_with(&[("KAIROS_IDENTITY_DATABASE_READ_URLS", &pair.replica.url(&other))])
        .await;

    misconfigured.logged("excluded from look-ups: it does not show what this instance wrote").await;
    assert_eq!(pair.times_used(&misconfigured), 0);
    assert_eq!(resolve(&mut misconfigured.client().await, &ada).await.unwrap().username, "Ada2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_at_the_start_whether_each_read_url_is_used() {
    let pair = Pair::new();
    let empty = pair.primary.create_database();
    pair.replica.catch_up(&pair.primary);
    let port = pair.replica.port();
    let urls = [
        pair.replica.url(&pair.database),
        pair.replica.url(&empty),
        format!("postgres://postgres@127.0.0.1:{port}/missing?sslmode=disable"),
        pair.database.url().to_owned(),
        "postgres://postgres@127.0.0.1:1/x?sslmode=disable".to_owned(),
    ];

    let server = pair.service().with_env("KAIROS_IDENTITY_DATABASE_READ_URLS", &urls.join(",")).start().await;

    // SQLSTATE 42P01: there is no such table. SQLSTATE 3D000: there is no such database.
    for (port, verdict, reason) in [
        (port, "serves look-ups", ""),
        (port, "excluded from look-ups", "42P01"),
        (port, "excluded from look-ups", "3D000"),
        (pair.primary.port(), "excluded from look-ups", "it is not a replica or has been promoted"),
        (1, "excluded from look-ups", "refused"),
    ] {
        let words = format!("Replica 127.0.0.1:{port} {verdict}");
        let is_said = |log: &str| log.lines().any(|line| line.contains(&words) && line.contains(reason));
        until(&format!("{words}: {reason}"), LIMIT, async || is_said(&server.log()).then_some(())).await;
    }
}
