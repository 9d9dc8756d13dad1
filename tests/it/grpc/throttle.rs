//! How often passwords may be guessed.

use std::time::Duration;

use http::HeaderMap;
use kairos_identity::proto::{LoginRequest, ResendVerificationEmailRequest};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{PASSWORD, address, from, login, registration},
    server::{Builder, TestServer},
    wait::until,
};

/// How many guesses an account takes by default.
const FAILURES_MAX: usize = 10;

/// The log is written by a thread of its own.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// Guesses that are made at once.
const GUESSES: usize = 200;

/// Room for all guesses at once, and a log that tells each hash.
fn with_room_for_a_crowd(server: Builder) -> Builder {
    server
        .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1000")
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
        .with_env("KAIROS_IDENTITY_LOG_LEVEL", "info,kairos_identity::password=debug")
}

/// How many passwords a server has checked.
fn hashes(server: &TestServer) -> usize {
    server.log().matches("Checks a password").count()
}

/// The `number`th spelling of Ada's address; there are a hundred.
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

/// All that a refusal tells, but for what differs between any two: when it was, which call, and how long to wait to the microsecond.
fn all_but_the_wait(refusal: &Status) -> (Code, String, String, HeaderMap) {
    let mut details = refusal.get_error_details();
    details.set_retry_info(None);
    let mut metadata = refusal.metadata().clone().into_headers();
    for changing in ["date", "kairos-request-id", "grpc-status-details-bin"] {
        metadata.remove(changing);
    }
    (refusal.code(), refusal.message().to_owned(), format!("{details:?}"), metadata)
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
        let all_hashes = || servers.iter().map(|server| hashes(server)).sum::<usize>();
        until("the log tells of the hashes", LOG_LIMIT, async || (all_hashes() >= FAILURES_MAX).then_some(())).await;
        assert_eq!(all_hashes(), FAILURES_MAX);

        first.kill_9();
        first.restart().await;
        assert_eq!(guess_at_once(&[&first]).await, 0);
        let right = first.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_has_to_wait(&right);
        first.terminate();
        first.wait().await;
        assert!(hashes(&first) <= FAILURES_MAX);
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
            refusals.push(all_but_the_wait(&refusal));
        }
        assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
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

    async fn an_owner_is_let_in_where_they_have_logged_in_before_and_unlocked_everywhere(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        client.login(from("2001:db8::1", login("ada", PASSWORD))).await.unwrap();

        for address in ["192.0.2.1", "192.0.2.2"] {
            client.login(from(address, login("ada", "wrong"))).await.unwrap_err();
        }
        assert_has_to_wait(&client.login(from("192.0.2.3", login("ada", PASSWORD))).await.unwrap_err());
        assert_has_to_wait(&client.login(login("ada", PASSWORD)).await.unwrap_err());
        // Another address of the same subscriber.
        client.login(from("2001:db8::2", login("ada", PASSWORD))).await.unwrap();
        // There too guesses are counted.
        for _ in 0..2 {
            client.login(from("2001:db8::1", login("ada", "wrong"))).await.unwrap_err();
        }
        assert_has_to_wait(&client.login(from("2001:db8::1", login("ada", PASSWORD))).await.unwrap_err());

        server.command(&["user", "unlock", "ada"]).output().unwrap();
        for address in ["2001:db8::1", "192.0.2.3"] {
            client.login(from(address, login("ada", PASSWORD))).await.unwrap();
        }
    }

    async fn one_address_has_a_budget_for_all_accounts_and_for_registrations_and_resends(engine: Engine) {
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_CLIENT_FAILURES_MAX", "2")
            .with_env("KAIROS_IDENTITY_CLIENT_REGISTRATIONS_MAX", "2")
            .with_env("KAIROS_IDENTITY_CLIENT_RESENDS_MAX", "2")
            .start()
            .await;
        let mut client = server.client().await;
        let resend = |name: &str| ResendVerificationEmailRequest { email: address(name), return_mail_token: false };

        for name in ["ada", "bob"] {
            client.register(from("192.0.2.1", registration(name))).await.unwrap();
            client.login(from("192.0.2.1", login(name, "wrong"))).await.unwrap_err();
            client.resend_verification_email(from("192.0.2.1", resend(name))).await.unwrap();
        }
        // The IPv4 address in IPv6's clothes is the same.
        let same = "::ffff:192.0.2.1";
        assert_has_to_wait(&client.register(from(same, registration("eve"))).await.unwrap_err());
        assert_has_to_wait(&client.login(from(same, login("joe", "wrong"))).await.unwrap_err());
        assert_has_to_wait(&client.resend_verification_email(from(same, resend("joe"))).await.unwrap_err());

        // Others are not concerned, nor is a caller that says nothing.
        for name in ["eve", "joe"] {
            client.register(from("192.0.2.2", registration(name))).await.unwrap();
        }
        client.register(registration("kim")).await.unwrap();
    }

    async fn what_is_no_address_is_refused_and_told_to_the_caller(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        for wrong in ["localhost", "192.0.2.1, 192.0.2.2"] {
            let refusal = client.login(from(wrong, login("ada", PASSWORD))).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert!(refusal.message().contains("kairos-client-ip"), "{refusal:?}");
        }
    }
}
