//! A PostgreSQL server that is not there yet when the service starts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{
    postgres::Postgres,
    program::{error_line, program},
    server::TestServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_postgresql() {
    let cluster = Arc::new(Postgres::own());
    let mut server = TestServer::on_url(cluster.create_database().url().to_owned()).start().await;
    server.kill_9();
    cluster.stop_immediate();

    let later = Arc::clone(&cluster);
    let start = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(1_500));
        later.start();
    });
    server.restart().await;

    start.await.unwrap();
    let log = server.log();
    let waits = log.matches("is not ready; waiting up to").count();
    assert!((1..10).contains(&waits), "{log}");
    assert!(log.contains("Connection refused"), "{log}");
}

#[test]
fn an_error_that_does_not_pass_ends_the_start_at_once() {
    let port = Postgres::shared().port();
    for (database, role, word) in
        [("missing", "postgres", "does not exist"), ("postgres", "nobody", "nobody")]
    {
        let url = format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable");
        let began = Instant::now();
        let mut migrate = program(&["migrate", "--database-url", &url]);
        let failure =
            error_line(1, &migrate.env_remove("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT").output().unwrap());
        assert!(failure.contains(word), "{failure}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn the_wait_for_postgresql_ends() {
    let began = Instant::now();
    let mut migrate = program(&["migrate", "--database-url", "postgres://kairos@127.0.0.1:1/x"]);
    let output = migrate.env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "1s").output().unwrap();
    let failure = error_line(1, &output);
    assert!(failure.contains("Connection refused"), "{failure}");
    assert!((1..5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
