//! PostgreSQL servers whose messages are not in English: what a failure means is known by its code.

use std::{sync::Arc, time::Duration};

use kairos_identity::proto::{ResolveTokenRequest, User, identity_service_client::IdentityServiceClient};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    errors::assert_refused,
    people::{PASSWORD, login, registration},
    postgres::{Postgres, PostgresDatabase},
    server::TestServer,
    wait::until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A service whose role may not choose the language of messages.
struct Foreign {
    cluster: Arc<Postgres>,
    database: PostgresDatabase,
    server: TestServer,
    ada: User,
}

impl Foreign {
    /// Starts a server whose message for a division by zero contains `words`, and a service on it.
    async fn start(language: &'static str, words: &str) -> Self {
        let cluster = Arc::new(Postgres::own_in(language));
        let error = cluster.try_psql("postgres", "SELECT 1/0").unwrap_err();
        assert!(error.contains(words), "the server has no messages in {language}: {error}");
        let (database, url) = cluster.create_database_of("kairos");
        let server = TestServer::on_url(url)
            .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "1s")
            .start()
            .await;
        let ada = server.member("ada").await;
        Self { cluster, database, server, ada }
    }

    /// Makes each insert into `core_user` run `statement` first.
    fn at_each_registration(&self, statement: &str) {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN {statement}; RETURN new; END $$; \
             CREATE OR REPLACE TRIGGER fault BEFORE INSERT ON core_user FOR EACH ROW EXECUTE FUNCTION fault()"
        );
        self.cluster.psql(self.database.name(), &sql);
    }

    async fn assert_unavailable_after(&self, statement: &str) {
        self.at_each_registration(statement);
        let refusal = self.server.client().await.register(registration("bob")).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    }

    /// Ends the connections of the service that wait for a lock, and returns their number.
    fn terminate_waiting(&self) -> usize {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE usename = 'kairos' AND wait_event_type = 'Lock'";
        self.cluster.psql("postgres", sql).lines().count()
    }
}

async fn resolve(client: &mut IdentityServiceClient<Channel>, user: &User) -> Result<(), Status> {
    client.resolve_token(ResolveTokenRequest { auth_token: user.auth_token.clone() }).await.map(drop)
}

async fn failures_are_known_by_their_code(language: &'static str, words: &str) {
    let foreign = Foreign::start(language, words).await;
    let mut client = foreign.server.client().await;

    foreign.assert_unavailable_after("PERFORM pg_sleep(10)").await;
    // Disk full, too many connections, lock not available, query cancelled, cannot connect now, and read-only
    // transaction.
    for code in ["53100", "53300", "55P03", "57014", "57P03", "25006"] {
        foreign.assert_unavailable_after(&format!("RAISE EXCEPTION 'x' USING ERRCODE = '{code}'")).await;
    }
    // An I/O error.
    foreign.at_each_registration("RAISE EXCEPTION 'x' USING ERRCODE = '58030'");
    let damage = client.register(registration("bob")).await.unwrap_err();
    assert_eq!(damage.code(), Code::DataLoss, "a page that cannot be read: {damage:?}");
    // A division by zero.
    foreign.at_each_registration("RAISE EXCEPTION 'x' USING ERRCODE = '22012'");
    let defect = client.register(registration("bob")).await.unwrap_err();
    assert_eq!(defect.code(), Code::Internal, "{defect}");
    foreign.server.logged("SQLSTATE 22012").await;

    foreign.cluster.stop_immediate();
    for _ in 0..4 {
        let refusal = resolve(&mut client, &foreign.ada).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
        let refusal = client.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    }
    foreign.cluster.start();
    until("a login succeeds after the restart", LIMIT, async || {
        let answer = client.login(login("ada", PASSWORD)).await;
        answer.inspect_err(|error| assert_eq!(error.code(), Code::Unavailable, "{error}")).ok()
    })
    .await;
}

async fn a_terminated_look_up_is_repeated(language: &'static str, words: &str) {
    let foreign = Foreign::start(language, words).await;
    let (cluster, name) = (Arc::clone(&foreign.cluster), foreign.database.name().to_owned());
    let lock = std::thread::spawn(move || {
        cluster.psql(&name, "BEGIN; LOCK TABLE core_user; SELECT pg_sleep(0.5); COMMIT")
    });
    until("the table is locked", LIMIT, async || {
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                     AND relation = 'core_user'::regclass";
        (foreign.cluster.psql(foreign.database.name(), locks) == "1").then_some(())
    })
    .await;

    let mut client = foreign.server.client().await;
    let ada = foreign.ada.clone();
    let call = tokio::spawn(async move { resolve(&mut client, &ada).await });
    until("the look-up is terminated", LIMIT, async || (foreign.terminate_waiting() > 0).then_some(())).await;

    call.await.unwrap().unwrap();
    lock.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_german_server_are_known_by_their_code() {
    failures_are_known_by_their_code("de", "Division durch Null").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_french_server_are_known_by_their_code() {
    failures_are_known_by_their_code("fr", "division par").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_is_repeated_after_pg_terminate_backend_on_a_german_server() {
    a_terminated_look_up_is_repeated("de", "Division durch Null").await;
}
