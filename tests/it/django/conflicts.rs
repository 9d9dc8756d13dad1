//! Rows that cannot be imported as they are: the import reports each one, and the operator decides.

use std::{collections::BTreeSet, fs};

use super::{
    Django, DjangoUser, IMPORTED_USERS, Model, RESOLVE_ALL_CONFLICTS, ROWS_OF_ONE_EMAIL, import, kairos,
    left_out, refused, users,
};
use crate::support::{
    engine::{Engine, TestDatabase},
    people::registration,
    program::{stderr, stdout},
    server::TestServer,
};

on_both_engines! {
    async fn a_dry_run_lists_every_conflict_with_its_rows_and_writes_nothing(engine: Engine) {
        let django = Django::from_fixture(Model::WithoutTimestamps);
        let store = TestDatabase::new(engine);
        let report = django.path("report.json");

        let (error, printed) = refused(&[
            "import", "django", "--from", django.url(), "--to", store.url(), "--dry-run", "--report", report.to_str().unwrap(),
        ]);

        assert!(error.contains("conflicts are open, and nothing was imported"), "{error}");
        assert!(printed.contains("schema     without timestamps"), "{printed}");
        let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
        let rows = |kind: &str| -> Vec<Vec<i64>> {
            let found = report["every_finding"].as_array().unwrap().iter().filter(|found| found["kind"] == kind);
            let numbers = |found: &serde_json::Value| {
                found["rows"].as_array().unwrap().iter().map(|row| row.as_i64().unwrap()).collect()
            };
            found.map(numbers).collect()
        };
        assert_eq!(rows("duplicate_email"), ROWS_OF_ONE_EMAIL);
        let tokens: BTreeSet<&str> = django.truth.iter().map(|row| row.auth_token.as_str()).collect();
        assert_eq!(rows("duplicate_auth_token").len(), django.truth.len() - tokens.len());
        let usernames: BTreeSet<&str> = django.truth.iter().map(|row| row.username.as_str()).collect();
        assert_eq!(rows("duplicate_username").len(), django.truth.len() - usernames.len());
        let unnamed = django.truth.iter().filter(|row| row.username.is_empty()).map(|row| [row.id]);
        assert_eq!(rows("username_impossible"), unnamed.collect::<Vec<_>>());
        assert_eq!(report["schema"], "without timestamps");
        assert_eq!(report["imported"], 0);
        // No migration has run, and no file was created.
        match engine {
            Engine::Sqlite => assert!(!fs::exists(store.url().strip_prefix("sqlite://").unwrap()).unwrap()),
            Engine::Postgres => assert!(store.try_execute("SELECT 1 FROM core_user").is_err()),
        }
    }

    async fn conflicts_stop_the_import_by_default(engine: Engine) {
        let django = Django::from_fixture(Model::Documented);
        let store = TestDatabase::new(engine);

        let (error, printed) = refused(&["import", "django", "--from", django.url(), "--to", store.url()]);

        assert!(error.contains("nothing was imported") && error.contains("--on-email-conflict"), "{error}");
        assert!(printed.contains("open       duplicate_email: rows 140,141"), "{printed}");
        assert_eq!(store.count("core_user"), 0);
    }

    async fn a_report_contains_no_password_and_equal_checksums_of_both_sides(engine: Engine) {
        let django = Django::from_fixture(Model::WithoutTimestamps);
        let store = TestDatabase::new(engine);
        let path = django.path("report.json");

        import(&django, &store, &[&RESOLVE_ALL_CONFLICTS[..], &["--report", path.to_str().unwrap()]].concat());

        let report = fs::read_to_string(&path).unwrap();
        for original in django.truth.iter().filter(|original| original.stored.len() > 7) {
            assert!(!report.contains(&original.stored), "{}", original.stored);
        }
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["checksums"]["source"], report["checksums"]["store"]);
        assert_eq!(report["checksums"]["users"], IMPORTED_USERS);
        let is_plaintext = |row: &&DjangoUser| row.hasher == "plaintext" && !row.is_password_changed();
        assert_eq!(report["passwords"]["plaintext"], django.truth.iter().filter(is_plaintext).count());
        let is_md5 = |row: &&DjangoUser| row.hasher == "md5";
        assert_eq!(report["passwords"]["md5"], django.truth.iter().filter(is_md5).count());
        assert_eq!(report["complete"], true);
        assert!(stdout(&kairos(&["import", "verify", "--from", django.url(), "--to", store.url()])).contains("agree"));
    }

    async fn imported_users_keep_their_usernames_tokens_and_times(engine: Engine) {
        let django = Django::from_fixture(Model::Documented);
        let store = TestDatabase::new(engine);

        import(&django, &store, &RESOLVE_ALL_CONFLICTS);

        let users = users(&store);
        for original in &django.truth {
            let micros = |time: &Option<String>| {
                let time = time.as_deref().unwrap().trim_end_matches("+00:00").replace('T', " ");
                if time.contains('.') { time } else { time + ".000000" }
            };
            let Some(user) = users.iter().find(|user| user.contains(&original.auth_token)) else {
                assert!(left_out().contains(&original.id), "{original:?}");
                continue;
            };
            let shown = original.username.replace(['\n', '\t'], " ");
            if !original.username.is_empty() {
                assert!(user.contains(&format!("|{shown}|")), "{user}: {original:?}");
            }
            assert!(user.ends_with(&format!("|{}|{}", micros(&original.created_at), micros(&original.updated_at))), "{user}: {original:?}");
            assert_eq!(user.contains("|1|"), original.is_verified, "{user}");
        }
    }

    async fn keep_oldest_leaves_out_the_newer_row(engine: Engine) {
        let django = Django::from_fixture(Model::Documented);
        let store = TestDatabase::new(engine);

        import(&django, &store, &["--on-email-conflict", "keep-oldest", "--on-username-conflict", "suffix"]);

        let left_out = store.rows("SELECT CAST(source_id AS VARCHAR(9)) AS value FROM core_imported_user WHERE is_left_out");
        let mut left_out: Vec<i64> = left_out.iter().map(|id| id.parse().unwrap()).collect();
        left_out.sort_unstable();
        // Of each pair, the row with the greater id is the newer one.
        let mut newer = ROWS_OF_ONE_EMAIL.map(|[one, other]| one.max(other));
        newer.sort_unstable();
        assert_eq!(left_out, newer);
    }

    async fn users_already_in_the_store_stay_and_are_reported_as_conflicts(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let django = Django::small(Engine::Sqlite, 3);
        django.execute("UPDATE core_user SET email = 'Ada@example.com', is_verified = 1 WHERE id = 1; UPDATE core_user SET username = 'ada' WHERE id = 2");
        let key = server.secret_key_file();
        let arguments = [
            "import", "django", "--from", django.url(), "--to", server.database_url(), "--secret-key-file", key.to_str().unwrap(),
        ];

        let (_, printed) = refused(&arguments);
        assert!(printed.contains("email_taken_here: rows 1") && printed.contains("username_taken_here: rows 2"), "{printed}");
        let (_, printed) = refused(&[&arguments[..], &RESOLVE_ALL_CONFLICTS].concat());
        assert!(printed.contains(&format!("user delete {}", ada.auth_token)), "a verified row is not left out for an unverified user: {printed}");
        let (_, printed) = refused(&[&arguments[..], &["--on-username-conflict", "suffix"]].concat());
        assert!(!printed.contains("username_taken_here"), "{printed}");

        assert!(server.command(&["user", "delete", &ada.auth_token, "--yes"]).output().unwrap().status.success());
        let output = kairos(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let taken = server.client().await.register(registration("ada")).await.unwrap_err();
        assert_eq!(taken.code(), tonic::Code::AlreadyExists, "the running service knows the imported user");
    }
}

#[test]
fn a_report_does_not_overwrite_an_existing_file() {
    let django = Django::small(Engine::Sqlite, 1);
    let store = TestDatabase::new(Engine::Sqlite);
    let path = django.path("report.json");
    fs::write(&path, "mine").unwrap();

    let report = path.to_str().unwrap();
    let (error, _) =
        refused(&["import", "django", "--from", django.url(), "--to", store.url(), "--report", report]);

    assert!(error.contains("already exists"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert!(!fs::exists(store.url().strip_prefix("sqlite://").unwrap()).unwrap());
}
