//! An import that is killed goes on where it was.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use kairos_identity::entropy::Entropy;

use super::{Django, Model, TAKE_ALL, command, import, kairos, text, users};
use crate::support::{
    engine::{Engine, TestDatabase},
    server::TestServer,
};

/// How often it is killed before it is let to its end.
const KILLS: u32 = 20;

/// So that it takes seconds: a hash of cost 8 takes some 15 ms.
const COST: &str = "8";

fn start(django: &Django, store: &TestDatabase, more: &[&str]) -> std::process::Command {
    let arguments = [&["import", "django", "--from", django.url(), "--to", store.url()], more].concat();
    let mut command = command(&arguments);
    command.env("KAIROS_IDENTITY_PASSWORD_COST", COST).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The hashes that are written, by email.
fn hashes(store: &TestDatabase) -> BTreeMap<String, String> {
    let rows = store.try_execute("SELECT 1 FROM core_user").map(|()| {
        store.rows("SELECT email || '|' || password AS value FROM core_user WHERE password NOT LIKE '%' || '|' || '%'")
    });
    let split = |row: String| row.split_once('|').map(|(email, hash)| (email.to_owned(), hash.to_owned()));
    rows.unwrap_or_default().into_iter().filter_map(split).collect()
}

/// What must be the same whenever it was killed: everything but what chance or the clock decides.
fn outcome(store: &TestDatabase) -> Vec<String> {
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
    async fn a_killed_import_goes_on_and_hashes_nobody_twice(engine: Engine) {
        // The one without times and with shared tokens into the engine whose key is beside it.
        let django = Django::kept(if engine == Engine::Sqlite { Model::Actual } else { Model::Documented });
        let store = TestDatabase::new(engine);
        let seed = u64::from_le_bytes(Entropy::system().bytes());
        println!("seed {seed}");
        let entropy = Entropy::seeded(seed);
        let mut before = BTreeMap::new();
        for _ in 0..KILLS {
            let mut import = start(&django, &store, &TAKE_ALL).spawn().unwrap();
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
        let end = start(&django, &store, &TAKE_ALL).output().unwrap();
        assert!(end.status.success(), "{}", text(&end.stderr));
        let after = hashes(&store);
        assert!(before.iter().all(|(email, hash)| after.get(email) == Some(hash)));

        let at_once = TestDatabase::new(engine);
        import(&django, &at_once, &TAKE_ALL);
        assert_eq!(outcome(&store), outcome(&at_once));
        let verified = kairos(&["import", "verify", "--from", django.url(), "--to", store.url()]);
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    }

    async fn ctrl_c_ends_an_import_in_order(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 400);
        let store = TestDatabase::new(engine);
        let import = start(&django, &store, &[]).spawn().unwrap();
        let began = Instant::now();
        while hashes(&store).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "it imports somebody");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let interrupt = format!("kill -INT {}", import.id());
        assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());

        let ended = import.wait_with_output().unwrap();

        assert_eq!(ended.status.code(), Some(1));
        assert!(text(&ended.stderr).contains("run the same command again"), "{}", text(&ended.stderr));
        assert!(store.count("core_user") < 400);
        assert!(start(&django, &store, &[]).output().unwrap().status.success());
        assert_eq!(store.count("core_user"), 400);
    }

    async fn what_has_changed_since_is_taken_over_and_what_has_changed_here_is_not(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 8);
        let store = TestDatabase::new(engine);
        let server = TestServer::on_url(store.url().to_owned()).start().await;
        let hash_of = |email: &str| hashes(&store).remove(email).unwrap();
        let arguments = ["import", "django", "--from", django.url(), "--to", server.database_url()];
        let run = || {
            let output = server.command(&arguments[..4]).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        };
        assert!(run().contains("8 imported, 0 updated"));

        django.execute(
            "UPDATE core_user SET email = 'new@example.com', is_verified = 1 WHERE id = 1; UPDATE core_user SET password = 'another-password' WHERE id = 2; \
             UPDATE core_user SET username = 'other' WHERE id = 3; UPDATE core_user SET username = 'other too' WHERE id = 4",
        );
        for (id, verb) in [(2, "disable"), (3, "delete"), (4, "verify")] {
            let token = &django.truth[id].auth_token;
            let more: &[&str] = if verb == "delete" { &["--yes"] } else { &[] };
            let done = server.command(&[&["user", verb, token], more].concat()).output().unwrap();
            assert!(done.status.success(), "{}", text(&done.stderr));
        }
        let hash = hash_of("bulk0000000@example.com");
        let printed = run();
        assert_eq!(hash_of("new@example.com"), hash, "another email is no other password");

        // The third row's user is disabled, which is no change of the user; the fourth one's is gone; the fifth one's was verified here already.
        assert!(printed.contains("0 imported, 3 updated") || printed.contains("0 imported, 4 updated"), "{printed}");
        assert!(printed.contains("deleted_here 1"), "{printed}");
        let client = server.client().await;
        let log_in = async |email: &str, password: &str| {
            let request = kairos_identity::proto::LoginRequest { email: email.to_owned(), password: password.to_owned() };
            client.clone().login(request).await.map_err(|status| status.code())
        };
        assert!(log_in("new@example.com", "bulk-password-0").await.is_ok(), "the password stays with a new email");
        assert_eq!(log_in("bulk0000001@example.com", "another-password").await.unwrap_err(), tonic::Code::PermissionDenied);
        assert_eq!(log_in("bulk0000001@example.com", "bulk-password-1").await.unwrap_err(), tonic::Code::Unauthenticated);
        assert!(run().contains("0 imported, 0 updated"), "once is enough");
    }

    async fn without_a_key_a_changed_plaintext_is_noticed_by_hashing(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 4);
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        // On SQLite a key is made beside the file; here it is lost.
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
