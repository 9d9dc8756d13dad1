//! Replicas of PostgreSQL, which serve look-ups: real ones that stream, and that lag, freeze and die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kairos_identity::proto::{
    ResolveTokenRequest, ResolveTokensRequest, ResolveTokensResponse, User, VerifyEmailRequest,
    identity_service_client::IdentityServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

use crate::support::{
    errors::assert_refused,
    mail::verification_token,
    people::{PASSWORD, by_email, login, registration},
    postgres::{Postgres, PostgresDatabase},
    server::{Builder, TestServer},
    standby::Standby,
    wait::until,
};

const LAG_MAX: &str = "KAIROS_IDENTITY_DATABASE_REPLICA_LAG_MAX";

/// So long that a replica whose replay is paused stays in use.
const NO_LAG_MAX: &str = "1m";

/// A replica that may not be used is left out within 2 s; the rest is for a busy machine.
const LEFT_OUT_LIMIT: Duration = Duration::from_secs(2 + 4);

/// Whatever happens to a replica, a call under load is answered within this.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long a busy machine may take for what it does in a second when idle.
const LIMIT: Duration = Duration::from_secs(20);

type Client = IdentityServiceClient<Channel>;

/// A primary, its replica, and a database on both.
struct Pair {
    primary: Postgres,
    replica: Standby,
    database: PostgresDatabase,
}

impl Pair {
    fn new() -> Self {
        let primary = Postgres::own();
        let replica = Standby::of(&primary);
        let database = primary.create_database();
        Self { primary, replica, database }
    }

    /// A service on both, not yet started.
    fn service(&self) -> Builder {
        TestServer::on_url(self.database.url().to_owned())
            .with_env("KAIROS_IDENTITY_DATABASE_READ_URLS", &self.replica.url(&self.database))
    }

    /// Starts the service, and waits until it uses the replica.
    async fn start(&self, service: Builder) -> TestServer {
        self.replica.catch_up(&self.primary);
        let server = service.start().await;
        self.wait_until_used(&server, 0).await;
        server
    }

    /// Waits until the service has taken the replica in more often than `before`.
    async fn wait_until_used(&self, server: &TestServer, before: usize) {
        until("the replica is taken in", LIMIT, async || (self.times_used(server) > before).then_some(()))
            .await;
    }

    /// How often the service has taken the replica in: at its start, and after each trouble.
    fn times_used(&self, server: &TestServer) -> usize {
        server.log().matches(&format!("The replica {} serves look-ups", self.replica.address())).count()
    }

    async fn wait_until_left_out(&self, server: &TestServer) {
        let words = format!("The replica {} is left out: ", self.replica.address());
        until("the replica is left out", LEFT_OUT_LIMIT, async || {
            server.log().contains(&words).then_some(())
        })
        .await;
    }

    /// Waits until the replica's connections show look-ups of the service.
    async fn wait_until_asked(&self) {
        let look_ups = "SELECT count(*) > 0 FROM pg_stat_activity \
                        WHERE application_name = 'kairos-identity' AND query LIKE '%auth_token%'";
        until("the replica is asked", LIMIT, async || {
            (self.replica.psql(self.database.name(), look_ups) == "t").then_some(())
        })
        .await;
    }

    /// Verifies `user` on the primary alone: from here on the replica, while in use, tells that they are not
    /// verified. Gives the user as they are now.
    async fn leave_behind(&self, server: &TestServer, user: &User) -> User {
        self.replica.catch_up(&self.primary);
        self.replica.pause_replay();
        let token = verification_token(server, &user.email).await;
        let answer = server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        answer.into_inner().user.unwrap()
    }

    /// Asserts that `user` is found while the primary is silent, so by the replica.
    async fn serves_alone(&self, client: &mut Client, user: &User) {
        self.replica.catch_up(&self.primary);
        self.primary.pause();
        for _ in 0..20 {
            assert_eq!(resolve(client, user).await.unwrap(), *user);
            assert_eq!(resolve_all(client, &[user]).await.unwrap().users, std::slice::from_ref(user));
        }
        self.primary.resume();
    }
}

async fn resolve(client: &mut Client, user: &User) -> Result<User, Status> {
    let mut request = Request::new(ResolveTokenRequest { auth_token: user.auth_token.clone() });
    request.set_timeout(DEADLINE);
    Ok(client.resolve_token(request).await?.into_inner().user.expect("the answer has a user"))
}

async fn resolve_all(client: &mut Client, users: &[&User]) -> Result<ResolveTokensResponse, Status> {
    let auth_tokens = users.iter().map(|user| user.auth_token.clone()).collect();
    let mut request = Request::new(ResolveTokensRequest { auth_tokens });
    request.set_timeout(DEADLINE);
    client.resolve_tokens(request).await.map(tonic::Response::into_inner)
}

/// Waits until look-ups say that `user` is verified, or is not.
async fn wait_until_seen_as(client: &mut Client, user: &User, is_verified: bool, limit: Duration) {
    until(&format!("the user is seen with is_verified {is_verified}"), limit, async || {
        (resolve(client, user).await.unwrap().is_verified == is_verified).then_some(())
    })
    .await;
}

/// Callers who look two people up again and again, one by one and together, until they are told to stop. Each checks
/// every answer.
struct Load {
    callers: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    async fn start(server: &TestServer, ada: &User, bob: &User) -> Self {
        let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (mut client, ada, bob) = (server.client().await, ada.clone(), bob.clone());
            let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
            callers.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(resolve(&mut client, &ada).await.unwrap(), ada);
                    let both = resolve_all(&mut client, &[&bob, &ada]).await.unwrap();
                    assert_eq!(both.users, [bob.clone(), ada.clone()]);
                    answered.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let load = Self { callers, answered, is_over };
        load.goes_on().await;
        load
    }

    /// Waits for more answers.
    async fn goes_on(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + 400;
        let is_enough = async || (self.answered.load(Ordering::Relaxed) >= enough).then_some(());
        until("calls are answered", LIMIT, is_enough).await;
    }

    /// Asserts that every call of every caller was answered.
    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_are_served_by_the_replica() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.newcomer("ada").await;
    let mut client = server.client().await;

    pair.serves_alone(&mut client, &ada).await;

    pair.wait_until_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_registered_a_moment_ago_is_found_by_every_instance() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let twin = server.twin().await;
    pair.wait_until_used(&twin, 0).await;
    let mut clients = [server.client().await, twin.client().await];
    let ada = server.newcomer("ada").await;
    pair.leave_behind(&server, &ada).await;

    for number in 1..=64 {
        let bob = server.newcomer(&format!("bob{number}")).await;
        for client in &mut clients {
            assert_eq!(resolve(client, &bob).await.unwrap(), bob);
            // One whom nobody knows, one whom the replica does not know yet, one whom it knows.
            let stranger = User { auth_token: Uuid::from_u128(number).to_string(), ..User::default() };
            let all = resolve_all(client, &[&stranger, &bob, &ada]).await.unwrap();
            let names: Vec<&str> = all.users.iter().map(|user| user.username.as_str()).collect();
            assert_eq!(names, [&bob.username, &ada.username]);
            assert_eq!(all.unknown_auth_tokens, std::slice::from_ref(&stranger.auth_token));
            assert_refused(&resolve(client, &stranger).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
        }
    }

    for client in &mut clients {
        wait_until_seen_as(client, &ada, false, LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_or_must_be_unique_asks_the_primary() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let mut client = server.client().await;
    let ada = server.newcomer("ada").await;
    pair.leave_behind(&server, &ada).await;
    wait_until_seen_as(&mut client, &ada, false, LIMIT).await;
    let bob = server.member("bob").await;

    let logged_in = client.login(login("ada", PASSWORD)).await.unwrap().into_inner().user.unwrap();
    let found = client.find_user(by_email(&ada.email)).await.unwrap().into_inner().user.unwrap();
    let taken = client.register(registration("bob")).await.unwrap_err();

    assert!(logged_in.is_verified && found.is_verified && bob.is_verified);
    assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
    wait_until_seen_as(&mut client, &ada, false, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_falls_behind_is_left_out_until_it_has_caught_up() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, "200ms")).await;
    let mut client = server.client().await;
    let ada = server.newcomer("ada").await;

    let verified = pair.leave_behind(&server, &ada).await;
    wait_until_seen_as(&mut client, &ada, true, LEFT_OUT_LIMIT).await;
    pair.wait_until_left_out(&server).await;

    let before = pair.times_used(&server);
    pair.replica.resume_replay();
    pair.wait_until_used(&server, before).await;
    pair.serves_alone(&mut client, &verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_under_load_fails_no_call() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let (ada, bob) = (server.newcomer("ada").await, server.newcomer("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_asked().await;

    pair.replica.stop_immediate();
    pair.wait_until_left_out(&server).await;
    load.goes_on().await;

    let before = pair.times_used(&server);
    pair.replica.start();
    pair.wait_until_used(&server, before).await;
    load.goes_on().await;
    pair.wait_until_asked().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_freezes_under_load_fails_no_call() {
    let pair = Pair::new();
    let limits = pair
        .service()
        .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "500ms")
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "1s");
    let server = pair.start(limits).await;
    let (ada, bob) = (server.newcomer("ada").await, server.newcomer("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_asked().await;

    pair.replica.pause();
    pair.wait_until_left_out(&server).await;
    load.goes_on().await;

    let before = pair.times_used(&server);
    pair.replica.resume();
    pair.wait_until_used(&server, before).await;
    load.goes_on().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_promoted_is_left_out() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.newcomer("ada").await;
    pair.replica.catch_up(&pair.primary);

    pair.replica.psql("postgres", "SELECT pg_promote()");
    // From here on it has a history of its own.
    pair.replica.psql(pair.database.name(), "DELETE FROM core_user");
    pair.wait_until_left_out(&server).await;

    assert_eq!(resolve(&mut server.client().await, &ada).await.unwrap(), ada);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_while_its_replica_is_down() {
    let pair = Pair::new();
    pair.replica.stop_immediate();

    let server = pair.service().start().await;

    let ada = server.newcomer("ada").await;
    let mut client = server.client().await;
    assert_eq!(resolve(&mut client, &ada).await.unwrap(), ada);
    assert_eq!(pair.times_used(&server), 0);
    pair.replica.start();
    pair.wait_until_used(&server, 0).await;
    pair.serves_alone(&mut client, &ada).await;
}
