//! What the start waits for, and what it changes in its process.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_identity::proto::identity_service_client::IdentityServiceClient;
use tonic::Code;

use crate::support::{
    callers::{Bearer, CallersFile, token},
    people::registration,
    postgres::Postgres,
    program::{error_line, program},
    server::TestServer,
};

/// How long PostgreSQL is away while the service starts: two seconds and a part of one.
const OUTAGE: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_postgresql_and_says_so_each_second() {
    let cluster = Arc::new(Postgres::own());
    let mut server = TestServer::on_url(cluster.create_database().url().to_owned()).start().await;
    server.kill_9();
    cluster.stop_immediate();

    let later = Arc::clone(&cluster);
    let start = tokio::task::spawn_blocking(move || {
        std::thread::sleep(OUTAGE);
        later.start();
    });
    server.restart().await;

    start.await.unwrap();
    let log = server.log();
    let waits = log.matches("is not ready; waiting up to").count();
    // One line each second, from the first attempt on; the server takes some seconds to start.
    assert!((3..20).contains(&waits), "{waits} lines: {log}");
    assert!(log.contains("Connection refused"), "{log}");
}

#[test]
fn a_start_that_waits_for_a_hanging_server_says_so_each_second() {
    // The system accepts connections for it, and no program answers on them.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://kairos@{}/x", hanging.local_addr().unwrap());
    for connect_timeout in ["1s", "3s"] {
        let mut migrate = program(&["migrate", "--database-url", &url]);
        migrate.env("KAIROS_IDENTITY_DATABASE_CONNECT_TIMEOUT", connect_timeout);
        let output = migrate.env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "4s").output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        let lines = log.matches("is not ready; waiting up to").count();
        assert!((3..8).contains(&lines), "{connect_timeout}: {lines} lines: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_are_removed_while_the_start_waits_are_not_admitted() {
    let cluster = Arc::new(Postgres::own());
    let (agent, bff) = (token(1), token(2));
    let entry = |token| ("caller", token, "*", "*");
    let file = Arc::new(CallersFile::new(&[entry(&agent)]));
    let mut server = file.serve_on(TestServer::on_url(cluster.create_database().url().to_owned())).await;
    server.kill_9();
    cluster.stop_immediate();

    let (later, changed) = (Arc::clone(&cluster), Arc::clone(&file));
    let start = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(1_500));
        changed.write(&[("caller", &bff, "*", "*")]);
        later.start();
    });
    server.restart().await;
    start.await.unwrap();

    assert!(server.log().contains("is not ready; waiting up to"), "{}", server.log());
    server.logged("Reloaded the callers").await;
    let mut removed = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(agent)));
    let refusal = removed.register(registration("ada")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[test]
fn the_start_raises_the_soft_limit_on_open_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Command::new("sh")
        .args(["-c", "ulimit -Sn 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kairos-identity")])
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .args(["--telemetry-listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let log = BufReader::new(service.stderr.take().unwrap()).lines().map(Result::unwrap);
    let start: Vec<String> = log.take_while(|line| !line.contains("Serving gRPC on")).collect();
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
    service.kill().unwrap();
    service.wait().unwrap();

    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|index| files.split_whitespace().nth(index).unwrap());
    assert_eq!(soft, hard);
    assert!(!start.concat().contains("lowered"), "{start:#?}");
}

#[test]
fn an_error_that_does_not_pass_ends_the_start_at_once() {
    let port = Postgres::shared().port();
    for (database, role, word) in
        [("missing", "postgres", "does not exist"), ("postgres", "nobody", "nobody")]
    {
        let url = format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable");
        let began = Instant::now();
        // `program` turns the wait off. By default, an error that counts as passing is waited for up to 60 s.
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
