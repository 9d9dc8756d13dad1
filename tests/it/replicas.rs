//! Look-ups on PostgreSQL replicas: real standbys with streaming replication, which lag, freeze and crash.

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

/// Lag limit so high that a replica whose replay is paused stays in use.
const NO_LAG_MAX: &str = "1m";

/// The service stops using an unusable replica within 2 s; the rest allows for a busy machine.
const EXCLUDED_LIMIT: Duration = Duration::from_secs(2 + 4);

/// Deadline of each call: the service must answer within it, whatever happens to a replica.
const DEADLINE: Duration = Duration::from_secs(8);

/// Time limit for what an idle machine does in a second.
const LIMIT: Duration = Duration::from_secs(20);

type Client = IdentityServiceClient<Channel>;

/// A primary, its replica, and a database.
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

    /// Returns the settings of a service that uses the primary and the replica.
    fn service(&self) -> Builder {
        TestServer::on_url(self.database.url().to_owned())
            .with_env("KAIROS_IDENTITY_DATABASE_READ_URLS", &self.replica.url(&self.database))
    }

    /// Starts a service, and waits until it uses the replica.
    async fn start(&self, service: Builder) -> TestServer {
        self.replica.catch_up(&self.primary);
        let server = service.start().await;
        self.wait_until_used(&server, 0).await;
        server
    }

    /// Waits until the service has started to use the replica more than `before` times.
    async fn wait_until_used(&self, server: &TestServer, before: usize) {
        until("the service uses the replica", LIMIT, async || {
            (self.times_used(server) > before).then_some(())
        })
        .await;
    }

    /// Returns how often the service has started to use the replica: once at its start, and again after each
    /// failure.
    fn times_used(&self, server: &TestServer) -> usize {
        server.log().matches(&format!("Replica {} serves look-ups", self.replica.address())).count()
    }

    async fn wait_until_excluded(&self, server: &TestServer) {
        let words = format!("Replica {} excluded from look-ups: ", self.replica.address());
        until("the service stops using the replica", EXCLUDED_LIMIT, async || {
            server.log().contains(&words).then_some(())
        })
        .await;
    }

    /// Waits until `pg_stat_activity` of the replica shows look-ups of the service.
    async fn wait_until_queried(&self) {
        let look_ups = "SELECT count(*) > 0 FROM pg_stat_activity \
                        WHERE application_name = 'kairos-identity' AND query LIKE '%auth_token%'";
        until("the replica is queried", LIMIT, async || {
            (self.replica.psql(self.database.name(), look_ups) == "t").then_some(())
        })
        .await;
    }

    /// Pauses the replay of the replica and then verifies the email of `user`, so that the replica still
    /// shows the user as not verified. Returns the user as stored on the primary.
    async fn verify_on_primary_only(&self, server: &TestServer, user: &User) -> User {
        self.replica.catch_up(&self.primary);
        self.replica.pause_replay();
        let token = verification_token(server, &user.email).await;
        let answer = server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        answer.into_inner().user.unwrap()
    }

    /// Asserts that look-ups find `user` while the primary is frozen, so that only the replica can answer.
    async fn assert_replica_answers_alone(&self, client: &mut Client, user: &User) {
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

/// Waits until a look-up of `user` returns this value of `is_verified`.
async fn wait_until_seen_as(client: &mut Client, user: &User, is_verified: bool, limit: Duration) {
    until(&format!("the user is seen with is_verified {is_verified}"), limit, async || {
        (resolve(client, user).await.unwrap().is_verified == is_verified).then_some(())
    })
    .await;
}

/// Callers that look up two users repeatedly, with single calls and batches, until the load ends. Each caller
/// checks every answer.
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
        load.wait_for_progress().await;
        load
    }

    /// Waits until 400 more look-ups are answered.
    async fn wait_for_progress(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + 400;
        let is_enough = async || (self.answered.load(Ordering::Relaxed) >= enough).then_some(());
        until("calls are answered", LIMIT, is_enough).await;
    }

    /// Stops the callers, and asserts that every call succeeded.
    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_are_served_by_the_replica() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;

    pair.assert_replica_answers_alone(&mut client, &ada).await;

    pair.wait_until_queried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_registered_a_moment_ago_is_found_by_every_instance() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let second_instance = server.second_instance().await;
    pair.wait_until_used(&second_instance, 0).await;
    let mut clients = [server.client().await, second_instance.client().await];
    let ada = server.unverified_user("ada").await;
    pair.verify_on_primary_only(&server, &ada).await;

    for number in 1..=64 {
        let bob = server.unverified_user(&format!("bob{number}")).await;
        for client in &mut clients {
            assert_eq!(resolve(client, &bob).await.unwrap(), bob);
            // A token without a user, a user that is only on the primary, and a user that is on both.
            let unknown = User { auth_token: Uuid::from_u128(number).to_string(), ..User::default() };
            let all = resolve_all(client, &[&unknown, &bob, &ada]).await.unwrap();
            let names: Vec<&str> = all.users.iter().map(|user| user.username.as_str()).collect();
            assert_eq!(names, [&bob.username, &ada.username]);
            assert_eq!(all.unknown_auth_tokens, std::slice::from_ref(&unknown.auth_token));
            assert_refused(&resolve(client, &unknown).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
        }
    }

    for client in &mut clients {
        wait_until_seen_as(client, &ada, false, LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_registrations_and_look_ups_by_email_use_the_primary() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, NO_LAG_MAX)).await;
    let mut client = server.client().await;
    let ada = server.unverified_user("ada").await;
    pair.verify_on_primary_only(&server, &ada).await;
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
async fn a_lagging_replica_is_not_used_until_it_has_caught_up() {
    let pair = Pair::new();
    let server = pair.start(pair.service().with_env(LAG_MAX, "200ms")).await;
    let mut client = server.client().await;
    let ada = server.unverified_user("ada").await;

    let verified = pair.verify_on_primary_only(&server, &ada).await;
    wait_until_seen_as(&mut client, &ada, true, EXCLUDED_LIMIT).await;
    pair.wait_until_excluded(&server).await;

    let before = pair.times_used(&server);
    pair.replica.resume_replay();
    pair.wait_until_used(&server, before).await;
    pair.assert_replica_answers_alone(&mut client, &verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_under_load_fails_no_call() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_queried().await;

    pair.replica.stop_immediate();
    pair.wait_until_excluded(&server).await;
    load.wait_for_progress().await;

    let before = pair.times_used(&server);
    pair.replica.start();
    pair.wait_until_used(&server, before).await;
    load.wait_for_progress().await;
    pair.wait_until_queried().await;
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
    let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
    let load = Load::start(&server, &ada, &bob).await;
    pair.wait_until_queried().await;

    pair.replica.pause();
    pair.wait_until_excluded(&server).await;
    load.wait_for_progress().await;

    let before = pair.times_used(&server);
    pair.replica.resume();
    pair.wait_until_used(&server, before).await;
    load.wait_for_progress().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_not_used() {
    let pair = Pair::new();
    let server = pair.start(pair.service()).await;
    let ada = server.unverified_user("ada").await;
    pair.replica.catch_up(&pair.primary);

    pair.replica.psql("postgres", "SELECT pg_promote()");
    // The promoted replica accepts writes, so that its data now differ from those of the primary.
    pair.replica.psql(pair.database.name(), "DELETE FROM core_user");
    pair.wait_until_excluded(&server).await;

    assert_eq!(resolve(&mut server.client().await, &ada).await.unwrap(), ada);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_while_its_replica_is_down() {
    let pair = Pair::new();
    pair.replica.stop_immediate();

    let server = pair.service().start().await;

    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    assert_eq!(resolve(&mut client, &ada).await.unwrap(), ada);
    assert_eq!(pair.times_used(&server), 0);
    pair.replica.start();
    pair.wait_until_used(&server, 0).await;
    pair.assert_replica_answers_alone(&mut client, &ada).await;
}
