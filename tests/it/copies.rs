//! The commands `copy` (a whole store into another database) and `backup` (of a running service).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    process::{Output, Stdio},
    time::Duration,
};

use kairos_identity::{
    entropy::Entropy,
    proto::{LoginRequest, RefreshSessionRequest, session_service_client::SessionServiceClient},
};

use crate::support::{
    engine::{Engine, TestDatabase},
    people::{PASSWORD, address, by_email, login, registration},
    program::{error_line, program, stderr, stdout},
    server::TestServer,
};

fn copy(from: &str, to: &str) -> Output {
    program(&["copy", "--from", from, "--to", to]).output().unwrap()
}

#[track_caller]
fn copied(from: &str, to: &str) -> String {
    let output = copy(from, to);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// Returns the lines of the output that show a table with its row count and checksum.
fn checksums(printed: &str) -> Vec<String> {
    printed.lines().filter(|line| line.starts_with("core_")).map(str::to_owned).collect()
}

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Sqlite => Engine::Postgres,
        Engine::Postgres => Engine::Sqlite,
    }
}

/// Starts a service and puts rows into every table that a service fills.
async fn service_with_data(engine: Engine) -> TestServer {
    let server = TestServer::start(engine).await;
    server.member("ada").await;
    let mut request = registration("bob");
    request.request_id = "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11".to_owned();
    server.client().await.register(request).await.unwrap();
    let eve = server.unverified_user("eve").await;
    let mut client = server.client().await;
    client.login(login("ada", PASSWORD)).await.unwrap();
    let known = crate::support::people::from("192.0.2.7", login("ada", PASSWORD));
    client.login(known).await.unwrap();
    client.login(login("ada", "wrong")).await.unwrap_err();
    assert!(server.command(&["user", "disable", &eve.auth_token]).output().unwrap().status.success());
    server
}

/// Returns the names of all tables except `core_copy`, which records the state of a copy.
fn tables(database: &TestDatabase) -> Vec<String> {
    let names = match database.engine() {
        Engine::Sqlite => {
            "SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name LIKE 'core\\_%' ESCAPE '\\' ORDER BY 1"
        }
        Engine::Postgres => {
            "SELECT table_name AS value FROM information_schema.tables WHERE table_name LIKE 'core\\_%' ORDER BY 1"
        }
    };
    let mut names = database.rows(names);
    names.retain(|name| name != "core_copy");
    names
}

on_both_engines! {
    async fn a_store_is_copied_there_and_back_and_served(engine: Engine) {
        let mut server = service_with_data(engine).await;
        let tokens = server.client().await.login(login("ada", PASSWORD)).await.unwrap().into_inner().tokens.unwrap();
        server.terminate();
        server.wait().await;
        let (there, back) = (TestDatabase::new(other(engine)), TestDatabase::new(engine));

        let first = copied(server.database_url(), there.url());
        let second = copied(there.url(), back.url());

        assert_eq!(checksums(&first), checksums(&second));
        assert_eq!(checksums(&first).len(), tables(&there).len(), "every table is copied");
        let rows: BTreeMap<String, usize> = tables(&there).into_iter().map(|name| (name.clone(), there.count(&name))).collect();
        // Attempts are in progress only while a password is compared.
        let is_filled = |name: &str| !["core_imported_user", "core_password_attempt"].contains(&name);
        assert!(rows.iter().all(|(name, rows)| *rows > 0 || !is_filled(name)), "{rows:?}");
        for (name, rows) in &rows {
            assert_eq!(back.count(name), *rows, "{name}");
        }

        let moved = server.second_instance_on(there.url()).await;
        let request = RefreshSessionRequest { refresh_token: tokens.refresh_token };
        SessionServiceClient::new(moved.channel().await).refresh_session(request).await.unwrap();
        moved.client().await.register(registration("new")).await.unwrap();
        let found = moved.client().await.find_user(by_email(&address("bob"))).await.unwrap();
        assert_eq!(found.into_inner().user.unwrap().username, "bob");
    }

    async fn a_target_that_is_not_empty_or_of_another_schema_is_refused(engine: Engine) {
        let server = service_with_data(engine).await;
        let used = TestServer::start(other(engine)).await;
        used.unverified_user("mallory").await;

        let refusal = error_line(1, &copy(server.database_url(), used.database_url()));
        assert!(refusal.contains("the target is not empty"), "{refusal}");
        let found = used.client().await.find_user(by_email(&address("mallory"))).await;
        assert!(found.is_ok() && used.client().await.find_user(by_email(&address("ada"))).await.is_err());

        let newer = TestDatabase::new(other(engine));
        assert!(program(&["migrate", "--database-url", newer.url()]).status().unwrap().success());
        newer.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231235959')");
        assert!(error_line(1, &copy(server.database_url(), newer.url())).contains("later release"));
        let older = TestDatabase::new(other(engine));
        assert!(program(&["migrate", "--database-url", older.url()]).status().unwrap().success());
        older.execute(
            "INSERT INTO core_user (username, username_key, email, password, is_verified, auth_token, created_at, updated_at) VALUES \
             ('a', 'a', 'a@example.com', '!', TRUE, '0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11', '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')",
        );
        older.execute("DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)");
        assert!(error_line(1, &copy(server.database_url(), older.url())).contains("kairos-identity migrate"));
        let missing = TestDatabase::new(Engine::Sqlite);
        assert!(error_line(1, &copy(missing.url(), TestDatabase::new(engine).url())).contains("there is no database file"));
    }

    async fn a_killed_copy_resumes_and_its_target_is_not_usable_before_the_end(engine: Engine) {
        let store = TestDatabase::new(engine);
        let django = crate::django::Django::fresh(
            Engine::Sqlite,
            crate::django::Model::Documented,
            &["--only-bulk", "--bulk-password", "pool", "--count", "6000"],
        );
        crate::django::import(&django, &store, &[]);
        let target = TestDatabase::new(other(engine));
        let entropy = Entropy::system();
        let mut was_partial = false;
        // Each copy gets more time than the one before, until one was killed in the middle.
        for round in 0..24 {
            let mut copy = program(&["copy", "--from", store.url(), "--to", target.url()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let delay = 100 + 60 * round + u64::from(entropy.bytes::<1>()[0]);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            copy.kill().unwrap();
            copy.wait().unwrap();
            let users = || target.try_execute("SELECT 1 FROM core_user").map_or(0, |()| target.count("core_user"));
            if (1..6000).contains(&users()) {
                was_partial = true;
                let list = program(&["user", "list", "--database-url", target.url()]).output().unwrap();
                assert!(error_line(1, &list).contains("is an incomplete copy"), "{list:?}");
            }
            if users() == 6_000 || (was_partial && round >= 5) {
                break;
            }
        }
        println!("killed while users were copied: {was_partial}");
        // If a copy finished before its kill, there is nothing to resume.
        if program(&["user", "list", "--database-url", target.url()]).output().unwrap().status.success() {
            return assert_eq!(target.count("core_user"), 6_000);
        }

        let printed = copied(store.url(), target.url());

        assert!(printed.contains("the checksums of both agree"), "{printed}");
        assert_eq!(target.count("core_user"), 6_000);
        assert!(program(&["user", "list", "--database-url", target.url()]).output().unwrap().status.success());
    }

    async fn a_source_that_changed_after_a_copy_was_stopped_is_detected(engine: Engine) {
        let mut server = service_with_data(engine).await;
        server.terminate();
        server.wait().await;
        let target = TestDatabase::new(other(engine));
        copied(server.database_url(), target.url());
        // Simulates a copy that was stopped before its end and a user that changed since.
        target.execute("UPDATE core_copy SET finished_at = NULL; UPDATE core_user SET username = 'another' WHERE email = 'ada@example.com'");

        let refusal = error_line(1, &copy(server.database_url(), target.url()));

        assert!(refusal.contains("table core_user differs between source and target"), "{refusal}");
        let list = program(&["user", "list", "--database-url", target.url()]).output().unwrap();
        assert!(error_line(1, &list).contains("is an incomplete copy"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_service_is_complete_and_restored_by_one_copy() {
    let mut server = TestServer::start(Engine::Sqlite).await;
    server.member("ada").await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.sqlite3");
    let writer = {
        let client = server.client().await;
        tokio::spawn(async move {
            for number in 0..60 {
                client.clone().register(registration(&format!("writer{number}"))).await.unwrap();
            }
        })
    };
    // The writer is in the middle of its registrations when the backup begins.
    tokio::time::sleep(Duration::from_millis(100)).await;

    let made = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();

    assert!(made.status.success(), "{}", stderr(&made));
    writer.await.unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the backup is in the folder");
    let again = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();
    assert!(error_line(1, &again).contains("already exists"));

    // This user registers after the backup, so the restored store must not contain it.
    server.unverified_user("late").await;
    server.terminate();
    server.wait().await;
    let path = server.database_url().strip_prefix("sqlite://").unwrap().to_owned();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{path}{suffix}"));
    }
    fs::copy(&backup, &path).unwrap();
    server.restart().await;
    let mut client = server.client().await;
    let request = LoginRequest { email: address("ada"), password: PASSWORD.to_owned() };
    client.login(request).await.unwrap();
    assert_eq!(client.find_user(by_email(&address("late"))).await.unwrap_err().code(), tonic::Code::NotFound);
    client.register(registration("after")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_written_is_refused_with_the_reason() {
    let server = TestServer::start(Engine::Sqlite).await;
    let refusal =
        error_line(1, &server.command(&["backup", "--to", "/nowhere/backup.sqlite3"]).output().unwrap());
    assert!(refusal.contains("/nowhere/backup.sqlite3"), "{refusal}");
    let postgres = TestServer::start(Engine::Postgres).await;
    let refusal = error_line(1, &postgres.command(&["backup", "--to", "backup.sqlite3"]).output().unwrap());
    assert!(refusal.contains("pg_dump"), "{refusal}");
}
