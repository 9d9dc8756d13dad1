//! Repeated imports after Django or the service has changed users.

use std::collections::{BTreeMap, BTreeSet};

use super::{Django, DjangoUser, IMPORTED_USERS, Model, RESOLVE_ALL_CONFLICTS, import, kairos, refused};
use crate::support::{
    engine::{Engine, TestDatabase},
    people::registration,
    program::{stderr, stdout},
    server::TestServer,
};

/// Returns the `auth_token`s by email.
fn tokens(store: &TestDatabase) -> BTreeMap<String, String> {
    let token = if store.engine() == Engine::Sqlite { "auth_token" } else { "auth_token::text" };
    let rows = store.rows(&format!("SELECT email || '|' || {token} AS value FROM core_user"));
    let split = |row: String| row.split_once('|').map(|(email, token)| (email.to_owned(), token.to_owned()));
    rows.into_iter().filter_map(split).collect()
}

fn verify(django: &Django, store: &TestDatabase) -> (bool, String) {
    let output = kairos(&["import", "verify", "--from", django.url(), "--to", store.url()]);
    (output.status.success(), stdout(&output) + &stderr(&output))
}

on_both_engines! {
    async fn rows_may_swap_emails_and_usernames(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 6);
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);

        // Rows 1 and 2 swap email and username, and row 3 takes the ones that row 4 releases.
        django.execute(
            "UPDATE core_user SET email = 'hold@example.com', username = 'hold' WHERE id = 1; \
             UPDATE core_user SET email = 'bulk0000000@example.com', username = 'bulk0000000' WHERE id = 2; \
             UPDATE core_user SET email = 'bulk0000001@example.com', username = 'bulk0000001' WHERE id = 1; \
             UPDATE core_user SET email = 'free@example.com', username = 'free' WHERE id = 4; \
             UPDATE core_user SET email = 'bulk0000003@example.com', username = 'bulk0000003' WHERE id = 3",
        );
        let printed = import(&django, &store, &[]);

        assert!(printed.contains("0 imported, 4 updated"), "{printed}");
        let after = tokens(&store);
        for (email, row) in [("bulk0000001", 0), ("bulk0000000", 1), ("bulk0000003", 2), ("free", 3)] {
            assert_eq!(after[&format!("{email}@example.com")], django.truth[row].auth_token, "{email}");
        }
        let keys = store.rows("SELECT username_key AS value FROM core_user WHERE username_key LIKE '@%'");
        assert!(keys.is_empty(), "{keys:?}");
        assert!(verify(&django, &store).0);
    }

    async fn a_row_that_was_left_out_is_imported_once_its_email_is_free(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 3);
        django.execute("UPDATE core_user SET email = 'BULK0000000@example.com' WHERE id = 2");
        let store = TestDatabase::new(engine);
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);
        assert_eq!(store.count("core_user"), 2);
        assert!(verify(&django, &store).0, "a row that was left out is not a difference");

        django.execute("UPDATE core_user SET email = 'elsewhere@example.com' WHERE id = 1");
        assert!(!verify(&django, &store).0);
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);

        assert_eq!(tokens(&store)["bulk0000000@example.com"], django.truth[1].auth_token);
        assert!(verify(&django, &store).0);
    }

    async fn a_user_recreated_in_django_conflicts_with_the_earlier_import(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 3);
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        django.execute(
            "DELETE FROM core_user WHERE id = 1; INSERT INTO core_user (username, email, password, is_verified, auth_token, created_at, updated_at) VALUES \
             ('again', 'bulk0000000@example.com', 'x', 1, '0e1f3a527f5b4a4e9d5b0c5a5b0b7f11', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
        );
        let arguments = ["import", "django", "--from", django.url(), "--to", store.url()];

        let (_, printed) = refused(&[&arguments[..], &RESOLVE_ALL_CONFLICTS].concat());

        assert!(printed.contains("a row that is no longer in the source") && printed.contains("user delete"), "{printed}");
        let old = tokens(&store)["bulk0000000@example.com"].clone();
        assert!(kairos(&["user", "delete", &old, "--yes", "--database-url", store.url()]).status.success());
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);
        assert_eq!(tokens(&store)["bulk0000000@example.com"], "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11");
    }

    async fn a_verified_row_is_not_left_out_for_an_unverified_registration_here(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut taken = registration("mallory");
        taken.email = "bulk0000000@example.com".to_owned();
        server.client().await.register(taken).await.unwrap();
        // Row 1 of `Django::small` is verified.
        let django = Django::small(Engine::Sqlite, 2);

        for decision in ["keep-oldest", "keep-verified"] {
            let key = server.secret_key_file();
            let arguments = [
                "import", "django", "--from", django.url(), "--to", server.database_url(), "--on-email-conflict", decision,
                "--secret-key-file", key.to_str().unwrap(),
            ];
            let (_, printed) = refused(&arguments);
            assert!(printed.contains("has not verified it"), "{decision}: {printed}");
        }
    }

    async fn every_report_repeats_earlier_decisions(engine: Engine) {
        let django = Django::from_fixture(Model::WithoutTimestamps);
        let store = TestDatabase::new(engine);
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);
        let path = django.path("again.json");

        import(&django, &store, &["--report", path.to_str().unwrap()]);

        let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let findings = &report["findings"];
        let rows = django.truth.len();
        let tokens: BTreeSet<&str> = django.truth.iter().map(|row| row.auth_token.as_str()).collect();
        assert_eq!(findings["renewed_before"], rows - tokens.len(), "the other rows with a shared token: {findings}");
        // Of each username one row keeps it, except of the empty one: no user may have it.
        let usernames: BTreeSet<&str> = django.truth.iter().map(|row| row.username.as_str()).collect();
        assert_eq!(findings["renamed_before"], rows - usernames.len() + 1, "{findings}");
        let has_weak_hash = |row: &&DjangoUser| row.hasher == "md5";
        assert_eq!(findings["weak_hash"], django.truth.iter().filter(has_weak_hash).count(), "{findings}");
        assert_eq!(findings["left_out_before"], rows - IMPORTED_USERS, "{findings}");
        // Without a key, a changed plaintext password is detected only by hashing: such rows are `unchecked`.
        let count = |state: &str| report["states"][state].as_u64().unwrap_or_default();
        assert_eq!(count("unchanged") + count("unchecked"), IMPORTED_USERS as u64, "{report}");
    }

    async fn a_password_that_changed_in_django_is_named_if_its_user_changed_here(engine: Engine) {
        let django = Django::from_fixture(Model::Documented);
        let store = TestDatabase::new(engine);
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);
        let with_note = |note: &str| django.truth.iter().find(|row| row.note == note).unwrap().clone();
        let (hashed, plain) = (with_note("argon2: ascii"), with_note("plaintext: ascii"));
        for user in [&hashed, &plain] {
            let sql = format!("UPDATE core_user SET updated_at = '2026-11-01 00:00:00.000000' WHERE email = '{}'", user.email);
            store.execute(&sql);
        }
        let other = with_note("bcrypt_sha256: spaces kept").stored;
        django.execute(&format!("UPDATE core_user SET password = '{other}' WHERE id = {}", hashed.id));
        django.execute(&format!("UPDATE core_user SET password = 'changed-in-django' WHERE id = {}", plain.id));

        let printed = import(&django, &store, &RESOLVE_ALL_CONFLICTS);

        assert!(printed.contains("changed_on_both_sides 1,") && printed.contains("password_not_compared 1,"), "{printed}");
    }

    async fn another_key_rehashes_no_password(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 4);
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        let hashes = || store.rows("SELECT email || password AS value FROM core_user ORDER BY 1");
        let before = hashes();
        let key = django.path("other.key");
        crate::support::private_file::write(&key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");

        let printed = import(&django, &store, &["--secret-key-file", key.to_str().unwrap()]);

        assert!(printed.contains("unchecked 4") && printed.contains("0 imported, 0 updated"), "{printed}");
        assert_eq!(hashes(), before);
        let printed = import(&django, &store, &["--secret-key-file", key.to_str().unwrap()]);
        assert!(printed.contains("unchanged 4"), "{printed}");
    }

    async fn an_exported_database_can_be_imported_again(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 4);
        django.execute("DELETE FROM core_user WHERE id = 2");
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        let back = Django::empty();
        assert!(kairos(&["export", "django", "--database-url", store.url(), "--to", back.url()]).status.success());

        let printed = import(&back, &store, &[]);

        assert!(printed.contains("0 imported, 0 updated"), "{printed}");
        assert!(import(&back, &store, &[]).contains("unchanged 3"));
        assert!(verify(&back, &store).0);
    }

    async fn a_username_with_a_nul_is_reported_with_its_row(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 3);
        django.execute("UPDATE core_user SET username = CAST(x'610062' AS TEXT) WHERE id = 2");
        let store = TestDatabase::new(engine);

        let (_, printed) = refused(&["import", "django", "--from", django.url(), "--to", store.url()]);

        assert!(printed.contains("unreadable: rows 2: its username contains a NUL"), "{printed}");
    }
}
