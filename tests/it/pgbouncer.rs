//! The service through PgBouncer in transaction mode, with the settings of `docs/pgbouncer.md`.

use std::time::{Duration, Instant};

use kairos_identity::proto::{ResolveTokenRequest, ResolveTokensRequest, User, VerifyEmailRequest};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    mail::verification_token,
    people::{PASSWORD, address, by_email, login, registration},
    pgbouncer::{PgBouncer, documented},
    postgres::{Postgres, PostgresDatabase},
    server::{Builder, TestServer},
    tools::RACING_CALLS,
    wait::until,
};

/// Role that `docs/pgbouncer.md` sets up.
const ROLE: &str = "kairos";

/// Maximum number of connections from PgBouncer to PostgreSQL: fewer than one instance opens to PgBouncer.
const POOL_SIZE: usize = 3;

/// Time limit for the return of the service: longer than the 15 s for which PgBouncer refuses clients by
/// default.
const RESTART_LIMIT: Duration = Duration::from_secs(25);

/// The longest outage after a restart with the documented `server_login_retry = 1`. PgBouncer's default would
/// make it 15 s.
const OUTAGE_MAX: Duration = Duration::from_secs(8);

/// A cluster with the role and its database, and PgBouncer in front of it.
struct Pooled {
    cluster: Postgres,
    bouncer: PgBouncer,
    database: PostgresDatabase,
}

impl Pooled {
    fn new() -> Self {
        let cluster = Postgres::own();
        let database = cluster.create_database();
        cluster.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        cluster.psql("postgres", &format!("ALTER DATABASE {} OWNER TO {ROLE}", database.name()));
        cluster.psql("postgres", &documented("sql"));
        let bouncer = PgBouncer::start(&cluster, ROLE, POOL_SIZE);
        Self { cluster, bouncer, database }
    }

    fn service(&self) -> Builder {
        TestServer::on_url(self.bouncer.url(&self.database))
            .with_migrations_through(&self.database.url_at(self.cluster.port(), ROLE))
            .with_env("KAIROS_IDENTITY_DATABASE_POOLER", "true")
            // Limits so high that no call is refused for the load; the role has other limits, of 3 s.
            .with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_DATABASE_CONNECT_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "30s")
            .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "1m")
    }

    /// Returns the number of connections of the role to PostgreSQL.
    fn server_connections(&self) -> usize {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        self.cluster.psql("postgres", &count).parse().unwrap()
    }
}

/// Registers [`RACING_CALLS`] users concurrently, half of them through each instance.
async fn register_users(instances: &[TestServer; 2]) -> Vec<User> {
    let mut calls = JoinSet::new();
    for number in 0..RACING_CALLS {
        let mut client = instances[number % 2].client().await;
        calls.spawn(async move {
            let answer = client.register(registration(&format!("user{number}"))).await.unwrap();
            answer.into_inner().user.unwrap()
        });
    }
    calls.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_registers_verifies_the_email_logs_in_and_is_looked_up() {
    let pooled = Pooled::new();
    let server = pooled.service().start().await;
    let mut client = server.client().await;

    let registered = client.register(registration("ada")).await.unwrap().into_inner().user.unwrap();
    let token = verification_token(&server, &address("ada")).await;
    let verified = client.verify_email(VerifyEmailRequest { token }).await.unwrap().into_inner();
    let logged_in = client.login(login("ada", PASSWORD)).await.unwrap().into_inner();
    let resolve = ResolveTokenRequest { auth_token: registered.auth_token };
    let resolved = client.resolve_token(resolve).await.unwrap().into_inner();

    let ada = verified.user.unwrap();
    assert!(ada.is_verified);
    assert_eq!(logged_in.user.as_ref(), Some(&ada));
    assert_eq!(resolved.user.as_ref(), Some(&ada));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_few_connections_and_get_correct_answers() {
    // So many that each connection to PostgreSQL serves many clients in turn.
    const CALLS: usize = 1_000;
    let pooled = Pooled::new();
    let first = pooled.service().start().await;
    let instances = [first.second_instance().await, first];

    let users = register_users(&instances).await;
    let auth_tokens: Vec<String> = users.iter().map(|user| user.auth_token.clone()).collect();
    let clients = [instances[0].client().await, instances[1].client().await];
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let (mut client, user) = (clients[number % 2].clone(), users[number % users.len()].clone());
        let (all, auth_tokens) = (users.clone(), auth_tokens.clone());
        calls.spawn(async move {
            if number % 10 == 0 {
                let answer = client.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.unwrap();
                assert_eq!(answer.into_inner().users, all);
            } else if number % 10 < 5 {
                assert_eq!(
                    client.find_user(by_email(&user.email)).await.unwrap().into_inner().user,
                    Some(user)
                );
            } else {
                let request = ResolveTokenRequest { auth_token: user.auth_token.clone() };
                assert_eq!(client.resolve_token(request).await.unwrap().into_inner().user, Some(user));
            }
        });
    }
    calls.join_all().await;

    let (clients, servers) = (pooled.bouncer.clients(&pooled.database), pooled.server_connections());
    assert!(clients > POOL_SIZE && (1..=POOL_SIZE).contains(&servers), "{clients} clients on {servers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_setting_of_the_service_stays_on_a_shared_connection() {
    let pooled = Pooled::new();
    let first = pooled.service().start().await;
    let instances = [first.second_instance().await, first];

    register_users(&instances).await;

    for limit in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
        assert_eq!(pooled.bouncer.psql(&pooled.database, &format!("SHOW {limit}")), "3s", "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_restart_of_postgresql_is_a_short_outage() {
    let pooled = Pooled::new();
    let server = pooled.service().with_env("KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT", "1s").start().await;
    let mut client = server.client().await;
    server.unverified_user("ada").await;

    pooled.cluster.stop_immediate();
    // PgBouncer notices the loss, and fails to connect to PostgreSQL.
    until("a call fails", RESTART_LIMIT, async || {
        let failed = client.find_user(by_email("ada@example.com")).await.err();
        failed.filter(|failed| failed.code() == Code::Unavailable)
    })
    .await;
    pooled.cluster.start();

    let began = Instant::now();
    until("a registration succeeds", RESTART_LIMIT, async || client.register(registration("bob")).await.ok())
        .await;
    assert!(began.elapsed() < OUTAGE_MAX, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_the_settings_do_not_name_is_reported_in_the_log() {
    let pooled = Pooled::new();

    let misconfigured = pooled.service().with_env("KAIROS_IDENTITY_DATABASE_POOLER", "false").start().await;
    misconfigured.logged("database.pooler is false, but a pooler in transaction mode").await;

    let configured = misconfigured.second_instance_with(&[("KAIROS_IDENTITY_DATABASE_POOLER", "true")]).await;
    let direct = misconfigured.second_instance_on(pooled.database.url()).await;
    for server in [configured, direct] {
        assert!(!server.log().contains("a pooler in transaction mode"));
    }
}
