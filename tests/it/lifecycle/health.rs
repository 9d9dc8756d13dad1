//! The health status: SERVING only while users can log in. Look-ups have a status of their own.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use kairos_identity::proto::ResolveTokenRequest;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus::{self, NotServing, Serving},
    health_client::HealthClient,
};

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    http::{get, request},
    people::{PASSWORD, login},
    postgres::Postgres,
    server::TestServer,
    wait::until,
};

/// Time within which the status follows the database: a guarantee to callers.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

const API: [&str; 3] = ["", "kairos.identity.v1.IdentityService", "kairos.identity.v1.SessionService"];
const LOOK_UPS: &str = "kairos.identity.v1.LookupService";

/// The status of the API (each of its services has the same) and that of the look-ups.
type Health = (ServingStatus, ServingStatus);

const EVERYTHING: Health = (Serving, Serving);
const LOOK_UPS_ONLY: Health = (NotServing, Serving);
const NOTHING: Health = (NotServing, NotServing);

/// Returns the status of the services at this moment; `None` while those of the API differ.
async fn health(server: &TestServer) -> Option<Health> {
    let mut client = HealthClient::new(server.channel().await);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.check(request).await.unwrap().into_inner().status()
    };
    let api = check("").await;
    for service in API {
        if check(service).await != api {
            return None;
        }
    }
    Some((api, check(LOOK_UPS).await))
}

/// Waits until the services have this status.
async fn becomes(server: &TestServer, expected: Health) {
    until(&format!("health is {expected:?}"), NOTICE_LIMIT, async || {
        (health(server).await == Some(expected)).then_some(())
    })
    .await;
}

/// A client of the database that holds a lock until it is dropped.
enum Lock {
    Sqlite(SqliteConnection),
    Postgres(tokio::task::JoinHandle<()>, tokio_postgres::Client),
}

impl Lock {
    /// Takes the write lock of SQLite's file, or a lock of the table on PostgreSQL.
    async fn take(database: &TestDatabase, table: &str) -> Self {
        match database.engine() {
            Engine::Sqlite => {
                let path = database.url().strip_prefix("sqlite://").unwrap();
                let mut connection = SqliteConnection::establish(path).unwrap();
                connection.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(connection)
            }
            Engine::Postgres => {
                let (client, connection) =
                    tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
                let running = tokio::spawn(async move { connection.await.unwrap_or_default() });
                client.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")).await.unwrap();
                Self::Postgres(running, client)
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Sqlite(connection) => drop(connection),
            Self::Postgres(running, client) => {
                drop(client);
                running.await.unwrap();
            }
        }
    }
}

on_both_engines! {
    async fn a_lock_of_another_client_leaves_only_look_ups_serving(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await;
        assert_eq!(health(&server).await, Some(EVERYTHING));

        for table in ["core_session", "core_throttle", "core_password_attempt", "core_mail_outbox"] {
            let lock = Lock::take(&database, table).await;
            becomes(&server, LOOK_UPS_ONLY).await;
            let request = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
            server.client().await.resolve_token(request).await.unwrap();

            lock.release().await;
            becomes(&server, EVERYTHING).await;
        }
        server.client().await.login(login("ada", PASSWORD)).await.unwrap();
        server.logged("Users cannot log in").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_becomes_a_standby_leaves_only_look_ups_serving() {
    let cluster = Postgres::own();
    let database = cluster.create_database();
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.member("ada").await;
    becomes(&server, EVERYTHING).await;

    cluster.become_standby();
    becomes(&server, LOOK_UPS_ONLY).await;
    let mut client = server.client().await;
    let refusal = client.login(login("ada", PASSWORD)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    client.resolve_token(ResolveTokenRequest { auth_token: ada.auth_token }).await.unwrap();
    server.logged("it is a standby").await;

    cluster.psql("postgres", "SELECT pg_promote()");
    becomes(&server, EVERYTHING).await;
    client.login(login("ada", PASSWORD)).await.unwrap();
}

on_both_engines! {
    async fn signing_keys_that_cannot_be_decrypted_leave_only_look_ups_serving(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await;

        // A sealed seed is bound to the id of its key.
        let kid = database.rows("SELECT kid AS value FROM core_signing_key").remove(0);
        database.execute(&format!("UPDATE core_signing_key SET kid = '{}'", "x".repeat(kid.len())));
        becomes(&server, LOOK_UPS_ONLY).await;
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::Internal, "INTERNAL");
        let request = ResolveTokenRequest { auth_token: ada.auth_token };
        server.client().await.resolve_token(request).await.unwrap();
        server.logged("no key signs access tokens").await;

        database.execute(&format!("UPDATE core_signing_key SET kid = '{kid}'"));
        becomes(&server, EVERYTHING).await;
        server.client().await.login(login("ada", PASSWORD)).await.unwrap();
    }
}

/// Asserts the answers of the two probes of the HTTP port.
fn assert_probes(server: &TestServer, is_ready: bool) {
    let http = server.http_address();
    let (status, text) = if is_ready { (200, "ready\n") } else { (503, "not ready\n") };
    for (path, status, text) in [("/livez", 200, "ok\n"), ("/readyz", status, text)] {
        let answer = get(http, path);
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
        let head = request(http, "HEAD", path, &[], "");
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
        let refused = request(http, "POST", path, &[], "");
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{path}");
    }
}

on_both_engines! {
    async fn the_probes_over_http_follow_the_health_status(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_PAGES_ENABLED", "false")
            .with_env("KAIROS_IDENTITY_SERVER_DRAIN_NOTICE", "1s")
            .start()
            .await;
        assert_probes(&server, true);
        assert!(!server.log().contains("/readyz"), "probes do not fill the log");

        let lock = Lock::take(&database, "core_session").await;
        becomes(&server, LOOK_UPS_ONLY).await;
        assert_probes(&server, false);
        lock.release().await;
        becomes(&server, EVERYTHING).await;
        assert_probes(&server, true);

        // While the shutdown is announced, the process still serves, but is not ready.
        server.terminate();
        until("the service is not ready", NOTICE_LIMIT, async || {
            (get(server.http_address(), "/readyz").status == 503).then_some(())
        })
        .await;
        assert_eq!(get(server.http_address(), "/livez").status, 200);
        server.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_postgresql_leaves_only_look_ups_serving() {
    let database = Postgres::shared().create_database();
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    server.member("ada").await;
    let set = |value: &str| {
        let name = database.name();
        Postgres::shared()
            .psql("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}"));
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
        Postgres::shared().psql("postgres", &format!("{others}'{name}'"));
    };

    set("on");
    becomes(&server, LOOK_UPS_ONLY).await;
    let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
    assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");

    set("off");
    becomes(&server, EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_rights_of_the_role() {
    let database = Postgres::shared().create_database();
    let role = format!("reader_of_{}", database.name());
    Postgres::shared().psql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    Postgres::shared().psql("postgres", &format!("ALTER DATABASE {} OWNER TO {role}", database.name()));
    let url = database.url_at(Postgres::shared().port(), &role);
    let server = TestServer::on_url(url).start().await;
    server.unverified_user("ada").await;
    assert_eq!(health(&server).await, Some(EVERYTHING));

    Postgres::shared().psql(database.name(), &format!("REVOKE SELECT ON core_user FROM {role}"));
    becomes(&server, NOTHING).await;
    Postgres::shared().psql(database.name(), &format!("GRANT SELECT ON core_user TO {role}"));
    becomes(&server, EVERYTHING).await;

    // Rights that only logins need.
    Postgres::shared().psql(database.name(), &format!("REVOKE SELECT ON core_throttle FROM {role}"));
    becomes(&server, LOOK_UPS_ONLY).await;
    server.logged("lacks the right to SELECT on core_throttle").await;
    Postgres::shared().psql(database.name(), &format!("GRANT SELECT ON core_throttle TO {role}"));
    becomes(&server, EVERYTHING).await;
    Postgres::shared().psql(database.name(), &format!("REVOKE INSERT ON core_session FROM {role}"));
    becomes(&server, LOOK_UPS_ONLY).await;
    server.logged("lacks the right to INSERT on core_session").await;
    // Another cause while the status stays the same.
    let exchange =
        format!("GRANT INSERT ON core_session TO {role}; REVOKE UPDATE ON core_throttle FROM {role}");
    Postgres::shared().psql(database.name(), &exchange);
    server.logged("lacks the right to UPDATE on core_throttle").await;
    Postgres::shared().psql(database.name(), &format!("GRANT UPDATE ON core_throttle TO {role}"));
    Postgres::shared().psql(database.name(), &format!("GRANT INSERT ON core_session TO {role}"));
    becomes(&server, EVERYTHING).await;
}

/// Overwrites the first page of a table in SQLite's file.
fn damage(database: &TestDatabase, table: &str) {
    let root = database.rows(&format!(
        "SELECT CAST(rootpage AS TEXT) AS value FROM sqlite_master WHERE type = 'table' AND name = '{table}'"
    ));
    let root: u64 = root[0].parse().unwrap();
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    let file =
        OpenOptions::new().write(true).open(database.url().strip_prefix("sqlite://").unwrap()).unwrap();
    // SQLite numbers its pages, of 4,096 bytes each, from 1.
    file.write_all_at(&[0xff; 4_096], (root - 1) * 4_096).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_page_of_a_table_that_logins_need_leaves_only_look_ups_serving() {
    for table in ["core_session", "core_mail_outbox", "core_mail_token", "core_throttle"] {
        let database = TestDatabase::new(Engine::Sqlite);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await;
        damage(&database, table);

        becomes(&server, LOOK_UPS_ONLY).await;
        let request = ResolveTokenRequest { auth_token: ada.auth_token };
        server.client().await.resolve_token(request).await.unwrap();
        server.logged("Database damaged").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_page_is_reported_as_damage_and_nothing_serves() {
    let database = TestDatabase::new(Engine::Sqlite);
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.member("ada").await;
    damage(&database, "core_user");

    becomes(&server, NOTHING).await;
    let request = ResolveTokenRequest { auth_token: ada.auth_token };
    let refusal = server.client().await.resolve_token(request).await.unwrap_err();
    assert_refused(&refusal, Code::DataLoss, "INTERNAL");
    // The log is written by a thread of its own.
    server.logged("Database damaged").await;
    server.logged("Call failed: database damaged").await;
}

/// The name of a fault, and what causes it in a file.
type FileFault = (&'static str, fn(&Path));

/// What PostgreSQL says about each of these files is in another language here; only its code counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_postgresql_cannot_read_is_reported_as_damage_and_nothing_serves() {
    let deny = |file: &Path| fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    let remove = |file: &Path| fs::remove_file(file).unwrap();
    let overwrite = |file: &Path| fs::write(file, [0xff; 8_192]).unwrap();
    let faults: [FileFault; 3] = [("denied", deny), ("removed", remove), ("overwritten", overwrite)];

    let cluster = Postgres::own_in("de");
    let mut damaged = Vec::new();
    for (name, fault) in faults {
        let (database, url) = cluster.create_database_of(name);
        let server = TestServer::on_url(url).start().await;
        let ada = server.member("ada").await;
        let file = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('core_user')";
        damaged.push((server, ada, fault, PathBuf::from(cluster.psql(database.name(), file))));
    }
    cluster.psql("postgres", "CHECKPOINT");
    // It closes the files, and forgets their pages.
    cluster.stop_immediate();
    for (_, _, fault, file) in &damaged {
        fault(file);
    }
    cluster.start();

    for (server, ada, ..) in damaged {
        server.logged("Database damaged").await;
        becomes(&server, NOTHING).await;
        let request = ResolveTokenRequest { auth_token: ada.auth_token };
        let refusal = server.client().await.resolve_token(request).await.unwrap_err();
        assert_refused(&refusal, Code::DataLoss, "INTERNAL");
        assert!(!server.log().contains("the role of the service needs SELECT"), "{}", server.log());
    }
}

/// The time limit of a write begins when it is enqueued, not when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn writes_behind_a_lock_fail_together() {
    let database = TestDatabase::new(Engine::Sqlite);
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_DATABASE_SQLITE_BUSY_TIMEOUT", "1s")
        .start()
        .await;
    server.member("ada").await;
    let _lock = Lock::take(&database, "core_session").await;

    let began = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = server.client().await;
        calls.spawn(async move { client.login(login("ada", PASSWORD)).await.unwrap_err() });
    }
    for refusal in calls.join_all().await {
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    }
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
}
