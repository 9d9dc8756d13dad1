//! `kairos-identity doctor`: what it says of a deployment that is well, and of one that is not.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use serde_json::Value;

use crate::support::{
    daemon::free_port,
    engine::Engine,
    postgres::Postgres,
    private_file,
    program::{run_in, stderr, stdout},
    server::TestServer,
    wait::until,
};

/// A finding: check, status, detail.
type Finding = (String, String, String);

fn findings(output: &Output) -> Vec<Finding> {
    let text = stdout(output);
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let field = |object: &Value, name: &str| object[name].as_str().unwrap().to_owned();
    objects
        .map(|object| (field(&object, "check"), field(&object, "status"), field(&object, "detail")))
        .collect()
}

/// Returns the status of each check, and asserts that the exit code agrees with them.
#[track_caller]
fn statuses(output: &Output) -> Vec<(String, String)> {
    let findings = findings(output);
    let has_failed = findings.iter().any(|(_, status, _)| status == "failed");
    assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{findings:#?}\n{}", stderr(output));
    findings.into_iter().map(|(check, status, _)| (check, status)).collect()
}

#[track_caller]
fn assert_found(findings: &[Finding], check: &str, status: &str, parts: &[&str]) {
    let found = findings.iter().any(|(of_check, of_status, detail)| {
        of_check == check && of_status == status && parts.iter().all(|part| detail.contains(part))
    });
    assert!(found, "no {status} {check} with {parts:?}: {findings:#?}");
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(check, status)| ((*check).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn a_new_folder_is_checked_and_nothing_is_created_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = ["doctor", "--format", "json", "--listen", &listen, "--telemetry-listen", ""];
    let output = run_in(folder.path(), &arguments);
    let expected =
        ["settings", "callers", "certificates", "pages", "ports", "mail", "disk", "database", "secret key"];
    assert_eq!(statuses(&output), pairs(&expected.map(|check| (check, "ok"))));
    assert_found(&findings(&output), "ports", "ok", &[&listen, "can be opened"]);
    assert_found(&findings(&output), "database", "ok", &["does not exist yet: serve creates it"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let is_progress = |line: &str| line.starts_with("doctor: still checking: ");
    assert!(stderr(&output).lines().all(is_progress), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_is_well() {
    for (engine, before, after) in
        [(Engine::Sqlite, &["disk"][..], &[][..]), (Engine::Postgres, &[], &["server", "rights", "clock"])]
    {
        let service = TestServer::start(engine).await;
        let mut doctor = service.command(&["doctor", "--format", "json", "--insecure-low-cost"]);
        let output = doctor.args(["--listen", &service.address().to_string()]).output().unwrap();
        let of_files = ["settings", "callers", "certificates", "pages", "ports", "mail"];
        let expected = [&of_files, before, &["database", "secret key"], after].concat();
        let expected: Vec<_> = expected.into_iter().map(|check| (check, "ok")).collect();
        let mut statuses = statuses(&output);
        // The ports in use, and those that are free.
        statuses.dedup();
        assert_eq!(statuses, pairs(&expected), "{:#?}", findings(&output));
        assert_found(&findings(&output), "database", "ok", &["has the schema of this release"]);
        assert_found(&findings(&output), "secret key", "ok", &["decrypts the secrets"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_is_found_in_one_run() {
    let service = TestServer::start(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    private_file::write(file("callers.toml"), "[bff]\nmethods = []\n");
    private_file::write(file("key.pem"), "no key");
    fs::write(file("cert.pem"), "no certificate").unwrap();
    private_file::write(file("other.key"), "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
    fs::set_permissions(file("other.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let mail = format!("smtp://127.0.0.1:{}", free_port());
    let output = service
        .command(&["doctor", "--format", "json", "--insecure-low-cost"])
        .args(["--callers", &path("callers.toml"), "--mail-url", &mail])
        .args(["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")])
        .args(["--secret-key-file", &path("other.key")])
        .output()
        .unwrap();

    statuses(&output);
    let found = findings(&output);
    assert_found(&found, "callers", "failed", &["callers.toml", "user-fields"]);
    assert_found(&found, "certificates", "failed", &["cert.pem", "server.tls-cert"]);
    assert_found(&found, "mail", "failed", &["mail.url", "no program listens"]);
    assert_found(&found, "secret key", "warning", &["other users may read", "chmod 600"]);
    assert_found(&found, "secret key", "failed", &["was encrypted under another key"]);
    assert_found(&found, "database", "ok", &["has the schema"]);
    assert!(stderr(&output).contains("findings are failures"), "{}", stderr(&output));
}

#[test]
fn a_named_key_is_checked_although_the_database_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["doctor", "--format", "json", "--secret-key-file", "absent.key", "--database-url"];
    let output = run_in(folder.path(), &[&arguments[..], &["mysql://x"]].concat());
    let found = findings(&output);
    assert_found(&found, "database", "warning", &["not checked", "database.url"]);
    assert_found(&found, "secret key", "failed", &["absent.key"]);
    // As every command whose command line is malformed.
    assert_eq!(output.status.code(), Some(2));
}

/// PostgreSQL looks in `public` first, where a function returns a time that is an hour ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_differs_from_that_of_the_server_is_found() {
    let cluster = Postgres::shared();
    let database = cluster.create_database();
    cluster.psql(
        database.name(),
        &format!(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
             AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$; \
             ALTER DATABASE {} SET search_path = public, pg_catalog",
            database.name()
        ),
    );
    let service = TestServer::on_url(database.url().to_owned()).start().await;
    let differ = "the clock of this machine is 3600.";
    let log = service.logged(differ).await;
    assert!(log.contains("refuses its access tokens; synchronize both (NTP)"), "{log}");

    let mut doctor = service.command(&["doctor", "--format", "json", "--insecure-low-cost"]);
    let output = doctor.args(["--listen", &service.address().to_string()]).output().unwrap();
    assert_found(&findings(&output), "clock", "failed", &[differ, "synchronize both (NTP)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_admits_few_and_a_replica_that_is_none_are_found() {
    let cluster = Postgres::shared();
    let (database, url) = cluster.create_database_of("few_for_doctor");
    let service = TestServer::on_url(url).start().await;
    cluster.psql(database.name(), "ALTER ROLE few_for_doctor CONNECTION LIMIT 12");
    let other = cluster.create_database();
    let output = service
        .command(&["doctor", "--format", "json", "--insecure-low-cost"])
        .env("KAIROS_IDENTITY_DATABASE_READ_URLS", other.url())
        .output()
        .unwrap();

    statuses(&output);
    let found = findings(&output);
    assert_found(&found, "server", "warning", &["PostgreSQL admits 12 connections", "database.pool-size"]);
    assert_found(&found, "replica", "failed", &["serves no look-ups: "]);
    assert!(found.iter().all(|(_, _, detail)| !detail.ends_with("look-ups: ")), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_cannot_be_opened_are_found() {
    let service = TestServer::start(Engine::Sqlite).await;
    let doctor = |address: &str| {
        let arguments = ["doctor", "--format", "json", "--insecure-low-cost", "--listen", address];
        service.command(&arguments).output().unwrap()
    };
    let of_service = doctor(&service.address().to_string());
    statuses(&of_service);
    assert_found(
        &findings(&of_service),
        "ports",
        "ok",
        &["a service answers at", &service.address().to_string()],
    );

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let of_other = doctor(&other.local_addr().unwrap().to_string());
    statuses(&of_other);
    assert_found(&findings(&of_other), "ports", "failed", &["server.listen", "another program", "--listen"]);

    // An address for documentation (RFC 5737).
    let foreign = doctor("192.0.2.1:50051");
    statuses(&foreign);
    assert_found(&findings(&foreign), "ports", "failed", &["192.0.2.1", "not an address of this machine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_is_found() {
    let arguments = ["doctor", "--format", "json", "--insecure-low-cost"];
    let cluster = Postgres::shared();
    let (database, url) = cluster.create_database_of("reader_for_doctor");
    let service = TestServer::on_url(url).start().await;
    cluster.psql(database.name(), "REVOKE UPDATE ON core_imported_user FROM reader_for_doctor");
    let found = findings(&service.command(&arguments).output().unwrap());
    assert_found(&found, "rights", "failed", &["lacks UPDATE on core_imported_user", "grant it"]);
    cluster.psql(database.name(), "REVOKE INSERT ON core_session FROM reader_for_doctor");
    let found = findings(&service.command(&arguments).output().unwrap());
    assert_found(&found, "database", "failed", &["lacks the right to INSERT on core_session", "grant it"]);
    let all = ["UPDATE on core_imported_user; INSERT on core_session: grant it"];
    assert_found(&found, "rights", "failed", &all);
    assert_found(&found, "clock", "ok", &[]);
    cluster.psql(database.name(), "REVOKE USAGE ON SCHEMA public FROM PUBLIC, pg_database_owner");
    let found = findings(&service.command(&arguments).output().unwrap());
    assert_found(&found, "database", "failed", &["may use none of them", "GRANT USAGE"]);
    cluster.psql(database.name(), "GRANT USAGE ON SCHEMA public TO PUBLIC, pg_database_owner");
    cluster.psql(database.name(), "REVOKE SELECT ON core_user FROM reader_for_doctor");
    let found = findings(&service.command(&arguments).output().unwrap());
    assert_found(&found, "database", "failed", &["permission denied", "SELECT, INSERT, UPDATE and DELETE"]);

    let service = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_DATABASE_SQLITE_BUSY_TIMEOUT", "100ms")
        .start()
        .await;
    let path = service.database_url().trim_start_matches("sqlite://");
    let mut other = SqliteConnection::establish(path).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
    let found = findings(&service.command(&arguments).output().unwrap());
    assert_found(&found, "database", "failed", &["another program", path]);
    assert_found(&found, "disk", "ok", &[path]);

    // The service that runs says so too.
    let address = service.address().to_string();
    let of_running = [&arguments[..], &["--listen", &address]].concat();
    let not_serving = until("a finding about the health", Duration::from_secs(30), async || {
        let found = findings(&service.command(&of_running).output().unwrap());
        let says = |(_, status, detail): &Finding| status == "failed" && detail.contains("says NOT_SERVING");
        found.iter().any(says).then_some(())
    });
    not_serving.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_file_that_other_users_may_read_or_change_is_warned_of() {
    let mut service = TestServer::start(Engine::Sqlite).await;
    service.terminate();
    service.wait().await;
    let path = service.database_url().trim_start_matches("sqlite://").to_owned();
    for (mode, warning) in [
        (0o600, None),
        (0o640, Some("other users may read")),
        (0o604, Some("other users may read")),
        (0o660, Some("other users may change")),
        (0o666, Some("other users may change")),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let found = findings(
            &service.command(&["doctor", "--format", "json", "--insecure-low-cost"]).output().unwrap(),
        );
        match warning {
            Some(warning) => assert_found(&found, "database", "warning", &[warning, &path, "chmod 600"]),
            None => assert_found(&found, "database", "ok", &[&path]),
        }
    }
}

#[test]
fn a_disk_without_room_for_a_mail_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // The signal that the kernel sends with the error would end the process.
    command.args(["-c", "trap '' XFSZ; exec prlimit --fsize=20000: \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_kairos-identity")).args(["doctor", "--format", "json"]);
    let found = findings(&command.current_dir(folder.path()).output().unwrap());
    assert_found(&found, "mail", "failed", &["mail.url: the disk is full", "data/mail"]);
}

/// When an operator is about to start a new release.
#[tokio::test(flavor = "multi_thread")]
async fn the_secret_key_is_checked_before_an_upgrade_too() {
    let mut service = TestServer::start(Engine::Sqlite).await;
    service.terminate();
    service.wait().await;
    let mut store =
        SqliteConnection::establish(service.database_url().trim_start_matches("sqlite://")).unwrap();
    let last = "version = (SELECT max(version) FROM __diesel_schema_migrations)";
    store.batch_execute(&format!("DELETE FROM __diesel_schema_migrations WHERE {last}")).unwrap();
    drop(store);
    private_file::write(service.secret_key_file(), "no key");
    let found = findings(&service.command(&["doctor", "--format", "json"]).output().unwrap());
    assert_found(&found, "database", "ok", &["serve applies 1 migrations at its start"]);
    assert_found(&found, "secret key", "failed", &["secret.key-file"]);
}

/// SQLite leaves them behind if two connections close at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn no_files_are_left_beside_a_database_that_is_not_served() {
    let mut service = TestServer::start(Engine::Sqlite).await;
    service.terminate();
    service.wait().await;
    let path = service.database_url().trim_start_matches("sqlite://").to_owned();
    for _ in 0..15 {
        let output = service.command(&["doctor", "--insecure-low-cost"]).output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        for suffix in ["-wal", "-shm"] {
            assert!(!Path::new(&format!("{path}{suffix}")).exists(), "{suffix}");
        }
    }
}

#[test]
fn a_check_that_takes_long_is_announced() {
    let folder = tempfile::tempdir().unwrap();
    // Accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(["doctor", "--format", "json", "--mail-url", &url]).env_clear().current_dir(folder.path());
    let output = command.env("KAIROS_IDENTITY_MAIL_TIMEOUT", "4s").output().unwrap();
    statuses(&output);
    assert!(stderr(&output).contains("doctor: still checking: mail"), "{}", stderr(&output));
}

#[test]
fn a_database_that_does_not_answer_is_one_finding_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("secret.key");
    private_file::write(&key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
    let doctor = |arguments: &[&str], folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
        command.args(["doctor", "--format", "json"]).args(arguments).env_clear();
        command.current_dir(folder).output().unwrap()
    };
    // Without the wait of the start for the server.
    let url = format!("postgres://kairos:hunter2@127.0.0.1:{}/x", free_port());
    let output = doctor(&["--database-url", &url, "--secret-key-file", key.to_str().unwrap()], folder.path());
    statuses(&output);
    assert_found(&findings(&output), "database", "failed", &["no program listens there"]);
    assert_found(&findings(&output), "mail", "ok", &["mails can be written"]);
    assert!(!stdout(&output).contains("hunter2"));
}
