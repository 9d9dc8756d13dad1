//! How often passwords may be guessed.

use std::time::Duration;

use kairos_identity::proto::LoginRequest;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{PASSWORD, address, login},
    server::{Builder, TestServer},
};

/// How many guesses an account takes by default.
const FAILURES_MAX: usize = 10;

/// Guesses that are made at once.
const GUESSES: usize = 200;

/// Room for all guesses at once, and time for the hashes of those that are checked, but not for the hashes of all: 200 take a
/// thread some 50 s.
fn with_room_for_a_crowd(server: Builder) -> Builder {
    server
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", "12")
        .with_env("KAIROS_IDENTITY_PASSWORD_THREADS", "1")
        .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1000")
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "15s")
}

/// The `number`th spelling of Ada's address, each another one.
fn spelling(number: usize) -> String {
    let spelled = |(index, letter): (usize, char)| {
        if number >> (index % 8) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
    };
    address("ada").chars().enumerate().map(spelled).collect()
}

/// Refused without a hash, told when to come back.
#[track_caller]
fn assert_has_to_wait(refusal: &Status) -> Duration {
    assert_refused(refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let delay = refusal.get_details_retry_info().and_then(|info| info.retry_delay);
    delay.unwrap_or_else(|| panic!("no RetryInfo in {refusal:?}"))
}

/// Guesses that many times at once, by turns at each server; gives how many were checked.
async fn guess_at_once(servers: &[&TestServer]) -> usize {
    let mut guesses = JoinSet::new();
    for number in 0..GUESSES {
        let mut client = servers[number % servers.len()].client().await;
        let request = LoginRequest { email: spelling(number), password: format!("guess {number}") };
        guesses.spawn(async move { client.login(request).await.unwrap_err() });
    }
    let refusals = guesses.join_all().await;
    let (checked, refused): (Vec<_>, Vec<_>) =
        refusals.iter().partition(|refusal| refusal.code() == Code::Unauthenticated);
    for refusal in refused {
        assert_has_to_wait(refusal);
    }
    checked.len()
}

on_both_engines! {
    async fn guesses_at_once_over_instances_and_a_restart_share_one_budget(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut first = with_room_for_a_crowd(TestServer::on_url(database.url().to_owned())).start().await;
        first.member("ada").await;
        let twin = if engine == Engine::Postgres { Some(first.twin().await) } else { None };

        let servers: Vec<&TestServer> = [Some(&first), twin.as_ref()].into_iter().flatten().collect();
        assert_eq!(guess_at_once(&servers).await, FAILURES_MAX);

        first.kill_9();
        first.restart().await;
        assert_eq!(guess_at_once(&[&first]).await, 0);
        let right = first.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_has_to_wait(&right);
    }

    async fn an_account_that_has_to_wait_looks_like_one_that_nobody_has(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2").start().await;
        server.member("ada").await;
        server.newcomer("bob").await;
        let mut client = server.client().await;

        let mut refusals = Vec::new();
        for name in ["ada", "bob", "unknown"] {
            for _ in 0..2 {
                let refusal = client.login(login(name, "wrong")).await.unwrap_err();
                assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            }
            // The right password of those who have one.
            let refusal = client.login(login(name, PASSWORD)).await.unwrap_err();
            let delay = assert_has_to_wait(&refusal);
            let first_wait = Duration::from_mins(15);
            assert!(delay <= first_wait && delay + Duration::from_mins(1) > first_wait, "{delay:?}");
            refusals.push(refusal.message().to_owned());
        }
        assert!(refusals.iter().all(|message| *message == refusals[0]), "{refusals:?}");
        // Nobody else has to wait.
        server.member("eve").await;
        client.login(login("eve", PASSWORD)).await.unwrap();
    }

    async fn the_right_password_takes_the_count_back_to_nothing(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "3")
            .start()
            .await;
        server.member("ada").await;
        let mut client = server.client().await;
        for _ in 0..3 {
            for password in ["wrong", "wrong too"] {
                client.login(login("ada", password)).await.unwrap_err();
            }
            client.login(login("ada", PASSWORD)).await.unwrap();
        }
        // What is left are the six that were wrong, of all accounts together.
        let counts = "SELECT kind || ' ' || attempts AS value FROM core_throttle WHERE attempts > 0";
        assert_eq!(database.rows(counts), ["any-password 6"]);
    }

    async fn a_wait_ends(engine: Engine) {
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1")
            .with_env("KAIROS_IDENTITY_LOGIN_WAIT_FIRST", "1s")
            .start()
            .await;
        server.member("ada").await;
        let mut client = server.client().await;
        client.login(login("ada", "wrong")).await.unwrap_err();

        let delay = assert_has_to_wait(&client.login(login("ada", PASSWORD)).await.unwrap_err());
        tokio::time::sleep(delay).await;

        client.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn one_guess_at_each_of_many_accounts_ends_too(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "3").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        for name in ["bob", "eve", "joe"] {
            let refusal = client.login(login(name, "wrong")).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
        assert_has_to_wait(&client.login(login("ada", PASSWORD)).await.unwrap_err());
    }
}
