//! An import that was stopped resumes where it stopped, and a repeated import applies later changes.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use kairos_identity::entropy::Entropy;

use super::{Django, Model, RESOLVE_ALL_CONFLICTS, import, kairos, users};
use crate::support::{
    engine::{Engine, TestDatabase},
    program::{program, stderr, stdout},
    server::TestServer,
};

/// Number of times the import is killed before it may finish.
const KILLS: u32 = 20;

/// Hash cost. A hash of cost 8 takes some 15 ms, so that the import takes seconds.
const COST: &str = "8";

fn start(django: &Django, store: &TestDatabase, more: &[&str]) -> std::process::Command {
    let arguments = [&["import", "django", "--from", django.url(), "--to", store.url()], more].concat();
    let mut command = program(&arguments);
    command.env("KAIROS_IDENTITY_PASSWORD_COST", COST).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Returns the stored hashes by email.
fn hashes(store: &TestDatabase) -> BTreeMap<String, String> {
    let rows = store.try_execute("SELECT 1 FROM core_user").map(|()| {
        store.rows("SELECT email || '|' || password AS value FROM core_user WHERE password NOT LIKE '%' || '|' || '%'")
    });
    let split = |row: String| row.split_once('|').map(|(email, hash)| (email.to_owned(), hash.to_owned()));
    rows.unwrap_or_default().into_iter().filter_map(split).collect()
}

/// Returns the users without random and time-dependent values: those must not depend on when the import was
/// killed.
fn outcome(store: &TestDatabase) -> Vec<String> {
    // The form without times is imported into SQLite: its users get the time of the import.
    let has_no_times = store.engine() == Engine::Sqlite;
    let renewed = store.rows(
        "SELECT u.email AS value FROM core_user u JOIN core_imported_user i ON i.user_id = u.id WHERE i.auth_token <> u.auth_token",
    );
    let mut users: Vec<String> = users(store)
        .into_iter()
        .map(|user| {
            let mut columns: Vec<&str> = user.split('|').collect();
            if has_no_times {
                columns.truncate(columns.len() - 2);
            }
            if renewed.iter().any(|email| columns[0] == email) {
                let token = if has_no_times { columns.len() - 1 } else { columns.len() - 3 };
                columns[token] = "renewed";
            }
            columns.join("|")
        })
        .collect();
    users.sort();
    users
}

on_both_engines! {
    async fn a_killed_import_resumes_and_hashes_no_password_twice(engine: Engine) {
        // The form without times and with shared tokens is imported into SQLite, whose secret key is a file
        // beside the database.
        let django = Django::from_fixture(if engine == Engine::Sqlite { Model::WithoutTimestamps } else { Model::Documented });
        let store = TestDatabase::new(engine);
        let seed = u64::from_le_bytes(Entropy::system().bytes());
        println!("seed {seed}");
        let entropy = Entropy::seeded(seed);
        let mut before = BTreeMap::new();
        for _ in 0..KILLS {
            let mut import = start(&django, &store, &RESOLVE_ALL_CONFLICTS).spawn().unwrap();
            let wait = Duration::from_millis(10 + u64::from(u16::from_le_bytes(entropy.bytes())) % 250);
            tokio::time::sleep(wait).await;
            import.kill().unwrap();
            import.wait().unwrap();
            let now = hashes(&store);
            for (email, hash) in &before {
                assert_eq!(now.get(email), Some(hash), "{email} was hashed again");
            }
            before = now;
        }
        println!("{} users after {KILLS} kills", before.len());
        let end = start(&django, &store, &RESOLVE_ALL_CONFLICTS).output().unwrap();
        assert!(end.status.success(), "{}", stderr(&end));
        let after = hashes(&store);
        assert!(before.iter().all(|(email, hash)| after.get(email) == Some(hash)));

        let uninterrupted = TestDatabase::new(engine);
        import(&django, &uninterrupted, &RESOLVE_ALL_CONFLICTS);
        assert_eq!(outcome(&store), outcome(&uninterrupted));
        let verified = kairos(&["import", "verify", "--from", django.url(), "--to", store.url()]);
        assert!(verified.status.success(), "{}", stderr(&verified));
    }

    async fn ctrl_c_stops_an_import_cleanly(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 400);
        let store = TestDatabase::new(engine);
        let import = start(&django, &store, &[]).spawn().unwrap();
        let began = Instant::now();
        while hashes(&store).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "the import writes its first user");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let interrupt = format!("kill -INT {}", import.id());
        assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());

        let ended = import.wait_with_output().unwrap();

        assert_eq!(ended.status.code(), Some(1));
        assert!(stderr(&ended).contains("run the same command again"), "{}", stderr(&ended));
        assert!(store.count("core_user") < 400);
        assert!(start(&django, &store, &[]).output().unwrap().status.success());
        assert_eq!(store.count("core_user"), 400);
    }

    async fn a_repeated_import_applies_changes_of_django_and_keeps_changes_made_here(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 8);
        let store = TestDatabase::new(engine);
        let server = TestServer::on_url(store.url().to_owned()).start().await;
        let hash_of = |email: &str| hashes(&store).remove(email).unwrap();
        // `server.command` sets the URL of the store.
        let run = || {
            let output = server.command(&["import", "django", "--from", django.url()]).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            stdout(&output)
        };
        assert!(run().contains("8 imported, 0 updated"));

        django.execute(
            "UPDATE core_user SET email = 'new@example.com', is_verified = 1 WHERE id = 1; \
             UPDATE core_user SET password = 'another-password' WHERE id = 2; \
             UPDATE core_user SET username = 'other' WHERE id = 3; \
             UPDATE core_user SET username = 'other too' WHERE id = 4",
        );
        let act_here = |arguments: &[&str]| {
            let done = server.command(arguments).output().unwrap();
            assert!(done.status.success(), "{}", stderr(&done));
        };
        let token_of_row = |id: usize| django.truth[id - 1].auth_token.as_str();
        act_here(&["user", "disable", token_of_row(3)]);
        act_here(&["user", "delete", token_of_row(4), "--yes"]);
        act_here(&["user", "verify", token_of_row(5)]);
        let hash = hash_of("bulk0000000@example.com");
        let printed = run();
        assert_eq!(hash_of("new@example.com"), hash, "a change of the email does not rehash the password");

        // Row 3: the user was disabled here, which does not count as a change. Row 4: the user was deleted
        // here. Row 5: the user was verified here already.
        assert!(printed.contains("0 imported, 3 updated") || printed.contains("0 imported, 4 updated"), "{printed}");
        assert!(printed.contains("deleted_here 1"), "{printed}");
        let client = server.client().await;
        let log_in = async |email: &str, password: &str| {
            let request = kairos_identity::proto::LoginRequest { email: email.to_owned(), password: password.to_owned() };
            client.clone().login(request).await.map_err(|status| status.code())
        };
        assert!(log_in("new@example.com", "bulk-password-0").await.is_ok(), "the password is the same after a change of the email");
        assert_eq!(log_in("bulk0000001@example.com", "another-password").await.unwrap_err(), tonic::Code::PermissionDenied);
        assert_eq!(log_in("bulk0000001@example.com", "bulk-password-1").await.unwrap_err(), tonic::Code::Unauthenticated);
        assert!(run().contains("0 imported, 0 updated"), "a repeated import changes nothing");
    }

    async fn without_the_key_a_changed_plaintext_password_is_detected_by_hashing(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 4);
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        // On SQLite the import created a key file beside the database; this test deletes it.
        if engine == Engine::Sqlite {
            std::fs::remove_file(format!("{}.key", store.url().strip_prefix("sqlite://").unwrap())).unwrap();
        }
        let before = hashes(&store);

        django.execute("UPDATE core_user SET password = 'another-password' WHERE id = 2");
        let printed = import(&django, &store, &[]);

        assert!(printed.contains("unchecked 4") && printed.contains("0 imported, 1 updated"), "{printed}");
        let after = hashes(&store);
        let changed: Vec<&String> = before.keys().filter(|email| before[*email] != after[*email]).collect();
        assert_eq!(changed, ["bulk0000001@example.com"]);
    }
}
