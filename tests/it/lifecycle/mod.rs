//! Starts, shutdowns and crashes.

mod database_file;
mod database_outage;
mod health;
mod rolling_restart;
mod startup;
mod upgrade;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kairos_identity::{entropy::Entropy, proto::ResolveTokenRequest};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use uuid::Uuid;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{PASSWORD, address, by_email, login, registration},
    server::{SLOW_HASH_COST, TestServer},
    tls::Certificate,
    wait::until,
};

/// Default of `server.drain-deadline`. A shutdown that takes so long has waited for an idle or silent
/// connection.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

const SERVICE: &str = "kairos.identity.v1.IdentityService";

/// Opens a health watch, and asserts that its first message is SERVING.
async fn watch_health(server: &TestServer) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut watch = HealthClient::new(server.channel().await).watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    watch
}

/// Eight callers, each of which resolves one token repeatedly until a call is refused.
struct Load {
    callers: JoinSet<Status>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    async fn start(server: &TestServer, auth_token: &str) -> Self {
        let (mut callers, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..8 {
            let (mut client, answered) = (server.client().await, Arc::clone(&answered));
            let request = ResolveTokenRequest { auth_token: auth_token.to_owned() };
            callers.spawn(async move {
                loop {
                    match client.resolve_token(request.clone()).await {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(refusal) => return refusal,
                    };
                }
            });
        }
        Self { callers, answered }
    }

    /// Waits for all callers. Returns the total number of answered calls, and the error that ended each
    /// caller.
    async fn end(self) -> (usize, Vec<Status>) {
        let refusals = self.callers.join_all().await;
        (self.answered.load(Ordering::Relaxed), refusals)
    }
}

/// Asserts that there are at least `count` users, each with one link and one mail, and that all mails are
/// sent.
async fn assert_complete(database: &TestDatabase, count: usize) {
    let tables = ["core_user", "core_mail_token", "core_mail_outbox"];
    let rows = tables.map(|table| database.count(table));
    assert!(rows[0] >= count && rows == [rows[0]; 3], "{rows:?}");
    let unsent = "SELECT 'unsent' AS value FROM core_mail_outbox WHERE sent_at IS NULL";
    until("all mails are sent", Duration::from_secs(20), async || {
        database.rows(unsent).is_empty().then_some(())
    })
    .await;
}

/// Starts eight concurrent registrations. Each returns the email and the `auth_token` of its user if it was
/// acknowledged.
async fn register_eight(server: &TestServer, round: usize) -> JoinSet<Option<(String, String)>> {
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let (mut client, name) = (server.client().await, format!("user{round}x{number}"));
        calls.spawn(async move {
            let answer = client.register(registration(&name)).await.ok()?;
            Some((address(&name), answer.into_inner().user?.auth_token))
        });
    }
    calls
}

on_both_engines! {
    async fn no_acknowledged_user_is_lost_by_20_kills_in_the_middle_of_registrations(engine: Engine) {
        let database = TestDatabase::new(engine);
        // The lease of a mail whose sender was killed lasts twice this timeout.
        let timeout = ("KAIROS_IDENTITY_MAIL_TIMEOUT", "200ms");
        let mut server = TestServer::on_url(database.url().to_owned()).with_env(timeout.0, timeout.1).start().await;
        let entropy = Entropy::system();
        let mut acknowledged: Vec<(String, String)> = Vec::new();
        let calls = register_eight(&server, 20).await;
        let began = Instant::now();
        acknowledged.extend(calls.join_all().await.into_iter().flatten());
        // Some kills come before the first commit, some after the last one.
        let kill_delay_max = began.elapsed().mul_f64(1.2);
        for round in 0..20 {
            let calls = register_eight(&server, round).await;
            tokio::time::sleep(kill_delay_max.mul_f64(entropy.fraction())).await;
            server.kill_9();
            acknowledged.extend(calls.join_all().await.into_iter().flatten());
            server.restart().await;
        }

        let mut client = server.client().await;
        for (email, auth_token) in &acknowledged {
            let found = client.find_user(by_email(email)).await.unwrap().into_inner().user.unwrap();
            assert_eq!(&found.auth_token, auth_token);
        }
        // 21 rounds of eight registrations; no kill interrupted the first round.
        println!("{} of 168 registrations were acknowledged", acknowledged.len());
        assert!((9..168).contains(&acknowledged.len()), "no kill came in the middle of the registrations");
        assert_complete(&database, acknowledged.len()).await;
        // A registration that was not acknowledged is stored completely or not at all, so the same call now
        // either succeeds or is refused.
        for (round, number) in (0..=20).flat_map(|round| (0..8).map(move |number| (round, number))) {
            let name = format!("user{round}x{number}");
            match client.register(registration(&name)).await {
                Ok(_) => assert!(!acknowledged.iter().any(|(email, _)| *email == address(&name))),
                Err(refusal) => assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS"),
            }
        }
    }

    async fn a_shutdown_under_load_loses_no_accepted_call(engine: Engine) {
        let mut server = TestServer::builder(engine)
            // A hash takes about 0.2 s, so the calls queue and are in progress when the shutdown begins.
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", "12")
            .with_env("KAIROS_IDENTITY_PASSWORD_THREADS", "1")
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
            .with_env("KAIROS_IDENTITY_SERVER_FIRST_BYTE_TIMEOUT", "10m")
            .with_env("KAIROS_IDENTITY_LOG_LEVEL", "info,rpc=debug")
            .start()
            .await;
        let ada = server.unverified_user("ada").await;
        let _silent = TcpStream::connect(server.address()).await.unwrap();
        let _idle = server.channel().await;
        let mut watch = watch_health(&server).await;
        let mut load = Load::start(&server, &ada.auth_token).await;
        let mut slow = JoinSet::new();
        for name in ["bob", "cyd", "dan", "eve"] {
            let mut client = server.client().await;
            slow.spawn(async move { client.register(registration(name)).await });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Some(answer) = slow.try_join_next() {
            answer.unwrap().unwrap();
        }
        assert!(!slow.is_empty(), "no registration is in progress");
        assert!(load.callers.try_join_next().is_none(), "a call was refused before the signal");

        let began = Instant::now();
        server.terminate();
        let status = server.wait().await;

        assert!(status.success(), "{status:?}");
        assert!(began.elapsed() < DRAIN_DEADLINE, "{:?}", began.elapsed());
        for answer in slow.join_all().await {
            answer.unwrap();
        }
        let log = server.log();
        let (answered, refusals) = load.end().await;
        // Every answer in the log has arrived at a caller, and every call in the log was answered.
        assert_eq!(answered, log.matches("/ResolveToken OK").count(), "{refusals:?}");
        assert_eq!(log.matches("/ResolveToken ").count(), answered, "{refusals:?}");
        let last = watch.message().await;
        assert!(matches!(&last, Ok(Some(message)) if message.status() == ServingStatus::NotServing), "{last:?}");
        assert!(log.contains("All connections closed"), "{log}");
    }

    async fn users_and_links_survive_a_restart(engine: Engine) {
        let mut server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.unverified_user("bob").await;
        let token = crate::support::mail::verification_token(&server, &address("bob")).await;
        server.terminate();
        assert!(server.wait().await.success());

        server.restart().await;

        let mut client = server.client().await;
        assert_eq!(client.login(login("ada", PASSWORD)).await.unwrap().into_inner().user, Some(ada));
        client.verify_email(kairos_identity::proto::VerifyEmailRequest { token }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sighup_reloads_certificates_and_stops_nothing() {
    let own = Certificate::localhost();
    let mut plain = TestServer::start(Engine::Sqlite).await;
    let (certificate, key) = (own.certificate(), own.key());
    let tls = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let secure = TestServer::builder(Engine::Sqlite).with_args(&tls).start().await;

    plain.signal("HUP");
    secure.signal("HUP");

    secure.logged("Reloaded the certificates").await;
    plain.unverified_user("ada").await;
    assert!(plain.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_exits_at_once() {
    let mut server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", SLOW_HASH_COST)
        .with_env("KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE", "10m")
        .start()
        .await;
    let mut client = server.client().await;
    let slow = tokio::spawn(async move { client.login(login("unknown", PASSWORD)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;

    server.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.terminate();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(server.is_running(), "two signals within a second are one, and the service waits for the call");
    let began = Instant::now();
    server.terminate();
    let status = server.wait().await;

    assert_eq!(status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(slow.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_token_stays_the_same_after_verification_and_login() {
    let server = TestServer::start(Engine::Sqlite).await;
    let unverified_user = server.unverified_user("ada").await;
    assert!(Uuid::parse_str(&unverified_user.auth_token).is_ok());
    let output = server.command(&["user", "verify", "ada"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = server.client().await.login(login("ada", PASSWORD)).await.unwrap().into_inner();
    assert_eq!(answer.user.unwrap().auth_token, unverified_user.auth_token);
}
