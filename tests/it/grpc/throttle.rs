//! Limits on guessing passwords.

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

/// The default of `login.failures-max`: failures in a row before an account has to wait.
const FAILURES_MAX: usize = 10;

/// How long to wait for log lines, which a separate thread writes.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// The number of concurrent guesses.
const GUESSES: usize = 200;

/// Sets limits that admit all guesses at the same time, and a log level that shows each password check.
fn admitting_all_guesses(server: Builder) -> Builder {
    server
        .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1000")
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "30s")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
        .with_env("KAIROS_IDENTITY_LOG_LEVEL", "info,kairos_identity::password=debug")
}

/// Counts the password checks in the log of a server.
fn password_checks(server: &TestServer) -> usize {
    server.log().matches("Password check started").count()
}

/// Returns Ada's email with the letters in upper case that the bits of `number` select.
fn spelling(number: usize) -> String {
    let spelled = |(index, letter): (usize, char)| {
        if number >> (index % 8) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
    };
    address("ada").chars().enumerate().map(spelled).collect()
}

/// Asserts that a call was refused because of earlier attempts, and returns the delay of its `RetryInfo`.
#[track_caller]
fn assert_throttled(refusal: &Status) -> Duration {
    assert_refused(refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let delay = refusal.get_details_retry_info().and_then(|info| info.retry_delay);
    delay.unwrap_or_else(|| panic!("no RetryInfo in {refusal:?}"))
}

/// Returns everything in an error except what differs between any two: the date, the request id and the exact
/// delay.
fn without_variable_parts(refusal: &Status) -> (Code, String, String, HeaderMap) {
    let mut details = refusal.get_error_details();
    details.set_retry_info(None);
    let mut metadata = refusal.metadata().clone().into_headers();
    for changing in ["date", "kairos-request-id", "grpc-status-details-bin"] {
        metadata.remove(changing);
    }
    (refusal.code(), refusal.message().to_owned(), format!("{details:?}"), metadata)
}

/// Sends all guesses at the same time, in turn to each server, and returns how many passwords were checked.
async fn guess_concurrently(servers: &[&TestServer]) -> usize {
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
        assert_throttled(refusal);
    }
    checked.len()
}

on_both_engines! {
    async fn concurrent_guesses_share_one_limit_across_instances_and_restarts(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut first = admitting_all_guesses(TestServer::on_url(database.url().to_owned())).start().await;
        first.member("ada").await;
        let second_instance = if engine == Engine::Postgres { Some(first.second_instance().await) } else { None };

        let servers: Vec<&TestServer> = [Some(&first), second_instance.as_ref()].into_iter().flatten().collect();
        assert_eq!(guess_concurrently(&servers).await, FAILURES_MAX);
        let all_checks = || servers.iter().map(|server| password_checks(server)).sum::<usize>();
        until("the log contains every password check", LOG_LIMIT, async || (all_checks() >= FAILURES_MAX).then_some(())).await;
        assert_eq!(all_checks(), FAILURES_MAX);

        let before_the_kill = password_checks(&first);
        first.kill_9();
        first.restart().await;
        assert_eq!(guess_concurrently(&[&first]).await, 0);
        let right = first.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_throttled(&right);
        first.terminate();
        first.wait().await;
        // The log continues after a restart.
        assert_eq!(password_checks(&first), before_the_kill, "no password is checked after the restart");
    }

    async fn a_throttled_account_and_a_throttled_unknown_email_look_the_same(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2").start().await;
        server.member("ada").await;
        server.unverified_user("bob").await;
        let mut client = server.client().await;

        let mut refusals = Vec::new();
        for name in ["ada", "bob", "unknown"] {
            for _ in 0..2 {
                let refusal = client.login(login(name, "wrong")).await.unwrap_err();
                assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            }
            // The right password of `ada` and `bob`.
            let refusal = client.login(login(name, PASSWORD)).await.unwrap_err();
            let delay = assert_throttled(&refusal);
            let first_wait = Duration::from_mins(15);
            assert!(delay <= first_wait && delay + Duration::from_mins(1) > first_wait, "{delay:?}");
            refusals.push(without_variable_parts(&refusal));
        }
        assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
        // Other accounts are not throttled.
        server.member("eve").await;
        client.login(login("eve", PASSWORD)).await.unwrap();
    }

    async fn a_successful_login_resets_the_failure_count(engine: Engine) {
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
        // Only the count over all accounts remains, with all six failures.
        let counts = "SELECT kind || ' ' || attempts AS value FROM core_throttle \
                      WHERE attempts > 0 AND kind <> 'any-mail' AND kind NOT LIKE '%mails-to'";
        assert_eq!(database.rows(counts), ["any-password 6"]);
    }

    async fn a_login_succeeds_after_the_wait(engine: Engine) {
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1")
            .with_env("KAIROS_IDENTITY_LOGIN_WAIT_FIRST", "1s")
            .start()
            .await;
        server.member("ada").await;
        let mut client = server.client().await;
        client.login(login("ada", "wrong")).await.unwrap_err();

        let delay = assert_throttled(&client.login(login("ada", PASSWORD)).await.unwrap_err());
        tokio::time::sleep(delay).await;

        client.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn guesses_across_many_accounts_share_a_total_limit(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "3").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        for name in ["bob", "eve", "joe"] {
            let refusal = client.login(login(name, "wrong")).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
        assert_throttled(&client.login(login("ada", PASSWORD)).await.unwrap_err());
    }

    async fn a_known_address_has_its_own_limit_and_unlock_ends_every_wait(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        client.login(from("2001:db8::1", login("ada", PASSWORD))).await.unwrap();

        for address in ["192.0.2.1", "192.0.2.2"] {
            client.login(from(address, login("ada", "wrong"))).await.unwrap_err();
        }
        assert_throttled(&client.login(from("192.0.2.3", login("ada", PASSWORD))).await.unwrap_err());
        assert_throttled(&client.login(login("ada", PASSWORD)).await.unwrap_err());
        // Another address in the same /64 network.
        client.login(from("2001:db8::2", login("ada", PASSWORD))).await.unwrap();
        // Failures from the known network are counted too.
        for _ in 0..2 {
            client.login(from("2001:db8::1", login("ada", "wrong"))).await.unwrap_err();
        }
        assert_throttled(&client.login(from("2001:db8::1", login("ada", PASSWORD))).await.unwrap_err());

        server.command(&["user", "unlock", "ada"]).output().unwrap();
        for address in ["2001:db8::1", "192.0.2.3"] {
            client.login(from(address, login("ada", PASSWORD))).await.unwrap();
        }
    }

    async fn one_client_address_has_limits_on_failures_registrations_and_resends(engine: Engine) {
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
        // The IPv4-mapped IPv6 form is the same address.
        let same = "::ffff:192.0.2.1";
        assert_throttled(&client.register(from(same, registration("eve"))).await.unwrap_err());
        assert_throttled(&client.login(from(same, login("joe", "wrong"))).await.unwrap_err());
        assert_throttled(&client.resend_verification_email(from(same, resend("joe"))).await.unwrap_err());

        // Calls from other addresses and calls without a client address are not limited.
        for name in ["eve", "joe"] {
            client.register(from("192.0.2.2", registration(name))).await.unwrap();
        }
        client.register(registration("kim")).await.unwrap();
    }

    async fn an_invalid_client_ip_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        for wrong in ["localhost", "192.0.2.1, 192.0.2.2"] {
            let refusal = client.login(from(wrong, login("ada", PASSWORD))).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert!(refusal.message().contains("kairos-client-ip"), "{refusal:?}");
        }
    }
}
