//! Races: 64 callers ([`RACING_CALLS`]) make the same call at the same moment. On PostgreSQL they call two
//! instances of the service.

use std::{sync::Arc, time::Duration};

use kairos_identity::proto::{
    RegisterRequest, RegisterResponse, User, VerifyEmailRequest,
    identity_service_client::IdentityServiceClient,
};
use tokio::{sync::Barrier, task::JoinSet};
use tonic::{Code, Response, Status, transport::Channel};
use uuid::Uuid;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    mail::verification_token,
    people::{PASSWORD, address, by_email, login, registration},
    server::TestServer,
    tools::RACING_CALLS,
    wait::until,
};

/// Spellings of one email, which differ in case, in Unicode normalization, and in the form of the domain.
const SPELLINGS: [&str; 4] =
    ["ada@bücher.example", "ADA@BÜCHER.Example", "Ada@xn--bcher-kva.example", "ada@bu\u{308}cher.example"];

/// The canonical form of [`SPELLINGS`], which the service stores.
const CANONICAL: &str = "ada@xn--bcher-kva.example";

/// Forms of one username, which differ in case, width and spaces and compare equal.
const NAMES: [&str; 4] = ["Ada Lovelace", "ADA LOVELACE", "ａｄａ lovelace", "  ada   lovelace "];

/// A database and the instances of the service that use it.
struct Deployment {
    database: TestDatabase,
    instances: Vec<TestServer>,
}

impl Deployment {
    /// Starts the instances with limits so high that no call is refused for the load.
    async fn open(engine: Engine) -> Self {
        let database = TestDatabase::new(engine);
        let first = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1000")
            .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
            // A short poll interval, so that both instances compete for every mail.
            .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "10ms")
            .start()
            .await;
        let second_instance =
            if engine == Engine::Postgres { Some(first.second_instance().await) } else { None };
        Self { database, instances: [first].into_iter().chain(second_instance).collect() }
    }

    fn first(&self) -> &TestServer {
        &self.instances[0]
    }

    /// Makes [`RACING_CALLS`] calls at once, each on its own connection, alternately to each instance.
    async fn at_once<T, C>(&self, call: impl Fn(IdentityServiceClient<Channel>, usize) -> C) -> Vec<T>
    where
        T: Send + 'static,
        C: Future<Output = T> + Send + 'static,
    {
        let start = Arc::new(Barrier::new(RACING_CALLS));
        let mut calls = JoinSet::new();
        for number in 0..RACING_CALLS {
            let client = self.instances[number % self.instances.len()].client().await;
            let (start, call) = (Arc::clone(&start), call(client, number));
            calls.spawn(async move {
                start.wait().await;
                call.await
            });
        }
        calls.join_all().await
    }

    /// Makes [`RACING_CALLS`] registrations at once; the caller with number `number` sends `request(number)`.
    async fn register(
        &self,
        request: impl Fn(usize) -> RegisterRequest,
    ) -> Vec<Result<Response<RegisterResponse>, Status>> {
        self.at_once(|mut client, number| {
            let request = request(number);
            async move { client.register(request).await }
        })
        .await
    }

    /// Asserts that there are `count` users, each with one link and one mail, and that each mail was sent
    /// once.
    async fn assert_users(&self, count: usize) {
        let tables = ["core_user", "core_mail_token", "core_mail_outbox"];
        assert_eq!(tables.map(|table| self.database.count(table)), [count; 3]);
        let list = self.first().command(&["user", "list"]).output().unwrap();
        assert_eq!(String::from_utf8(list.stdout).unwrap().lines().count(), count);

        let unsent = "SELECT 'unsent' AS value FROM core_mail_outbox WHERE sent_at IS NULL";
        until("the mails are sent", Duration::from_secs(20), async || {
            self.database.rows(unsent).is_empty().then_some(())
        })
        .await;
        let sent = || {
            self.instances.iter().map(|server| server.log().matches("\"Mail sent\"").count()).sum::<usize>()
        };
        until("the log reports the sent mails", Duration::from_secs(10), async || {
            (sent() >= count).then_some(())
        })
        .await;
        assert_eq!(sent(), count);
    }
}

/// Asserts that exactly one call succeeded and that all others were refused with this code and reason;
/// returns the response of the successful call.
#[track_caller]
fn only_one<T: std::fmt::Debug>(answers: Vec<Result<Response<T>, Status>>, code: Code, reason: &str) -> T {
    let (mut won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for refusal in &lost {
        assert_refused(refusal.as_ref().unwrap_err(), code, reason);
    }
    assert_eq!((won.len(), lost.len()), (1, RACING_CALLS - 1));
    won.remove(0).unwrap().into_inner()
}

/// Returns the spelling for the caller with number `number`, such that each instance gets all spellings.
fn spelling(of: [&str; 4], number: usize) -> String {
    of[number / 2 % of.len()].to_owned()
}

fn user(answer: RegisterResponse) -> User {
    answer.user.expect("the answer has a user")
}

on_both_engines! {
    async fn no_login_succeeds_while_the_registration_is_in_progress(engine: Engine) {
        const NAMES: usize = 8;
        // Several for each client, so that some logins run before the user is written and some after.
        const LOGINS_OF_EACH: usize = 8;
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
            .with_env("KAIROS_IDENTITY_PASSWORD_QUEUE_LENGTH", "1000")
            .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
            .start()
            .await;
        let name = |number: usize| format!("user{}", number % NAMES);
        let mut logins = JoinSet::new();
        for number in 0..RACING_CALLS {
            let mut client = server.client().await;
            logins.spawn(async move {
                let mut codes = Vec::new();
                for _ in 0..LOGINS_OF_EACH {
                    codes.push(client.login(login(&name(number), PASSWORD)).await.unwrap_err().code());
                }
                codes
            });
        }
        for number in 0..NAMES {
            server.unverified_user(&name(number)).await;
        }

        let codes = logins.join_all().await.concat();

        // Before the registration the email is unknown, and afterwards it is not verified. No login may see a
        // state in between. Some logins may be refused for the load.
        let expected = [Code::Unauthenticated, Code::PermissionDenied, Code::ResourceExhausted];
        assert!(codes.iter().all(|code| expected.contains(code)), "{codes:?}");
        assert!(codes.contains(&Code::Unauthenticated), "no login came before the registration: {codes:?}");
        for number in 0..NAMES {
            let refusal = server.client().await.login(login(&name(number), PASSWORD)).await.unwrap_err();
            assert_refused(&refusal, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
        }
    }

    async fn an_email_is_registered_once_in_whatever_spelling(engine: Engine) {
        let deployment = Deployment::open(engine).await;

        let answers = deployment
            .register(|number| RegisterRequest {
                email: spelling(SPELLINGS, number),
                ..registration(&format!("user {number}"))
            })
            .await;

        let ada = user(only_one(answers, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS"));
        assert_eq!(ada.email, CANONICAL);
        deployment.assert_users(1).await;
        for spelling in SPELLINGS {
            let found = deployment.first().client().await.find_user(by_email(spelling)).await.unwrap().into_inner();
            assert_eq!(found.user.as_ref(), Some(&ada), "{spelling}");
        }
    }

    async fn a_username_is_registered_once_in_whatever_form(engine: Engine) {
        let deployment = Deployment::open(engine).await;

        let answers = deployment
            .register(|number| RegisterRequest {
                username: spelling(NAMES, number),
                ..registration(&format!("user{number}"))
            })
            .await;

        only_one(answers, Code::AlreadyExists, "USERNAME_ALREADY_EXISTS");
        deployment.assert_users(1).await;
    }

    async fn a_request_sent_64_times_registers_one_user_and_returns_it_to_every_call(engine: Engine) {
        let deployment = Deployment::open(engine).await;
        let request_id = Uuid::from_u128(9).to_string();

        let answers = deployment
            .register(|_| RegisterRequest { request_id: request_id.clone(), ..registration("ada") })
            .await;

        let users: Vec<User> = answers.into_iter().map(|answer| user(answer.unwrap().into_inner())).collect();
        assert!(users.iter().all(|other| *other == users[0]), "{users:?}");
        deployment.assert_users(1).await;
    }

    async fn a_link_verifies_once(engine: Engine) {
        let deployment = Deployment::open(engine).await;
        let ada = deployment.first().unverified_user("ada").await;
        let token = verification_token(deployment.first(), &address("ada")).await;

        let answers = deployment
            .at_once(|mut client, _| {
                let request = VerifyEmailRequest { token: token.clone() };
                async move { client.verify_email(request).await }
            })
            .await;

        let verified = only_one(answers, Code::FailedPrecondition, "EMAIL_ALREADY_VERIFIED").user.unwrap();
        assert!(verified.is_verified && verified.auth_token == ada.auth_token);
        let found = deployment.first().client().await.find_user(by_email(&address("ada"))).await.unwrap();
        assert_eq!(found.into_inner().user, Some(verified));
    }

    async fn concurrent_registrations_succeed_and_each_user_is_mailed_once(engine: Engine) {
        let deployment = Deployment::open(engine).await;

        let answers = deployment.register(|number| registration(&format!("user{number}"))).await;

        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        deployment.assert_users(RACING_CALLS).await;
    }
}
