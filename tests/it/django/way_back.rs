//! Exports to Django: real Django reads the result.

use std::{collections::BTreeSet, fs, process::Command};

use super::{
    Django, DjangoUser, IMPORTED_USERS, Model, RESOLVE_ALL_CONFLICTS, fixtures, import, kairos, left_out,
    refused,
};
use crate::support::{
    engine::{Engine, TestDatabase},
    program::{stderr, stdout},
    server::TestServer,
    tools::python_path,
};

/// Returns the lines of `documented.truth.jsonl` of the users that the store holds exactly as Django did.
fn expected(django: &Django) -> String {
    let is_left_out = |user: &DjangoUser| left_out().contains(&user.id);
    let is_renamed = |user: &DjangoUser| user.username.is_empty();
    // The store keeps emails in lower case.
    let is_email_changed = |user: &DjangoUser| user.email != user.email.to_lowercase();
    let is_kept = |user: &&DjangoUser| {
        !is_left_out(user) && !is_renamed(user) && !is_email_changed(user) && !user.is_password_changed()
    };
    let kept: BTreeSet<&str> = django.truth.iter().filter(is_kept).map(|user| user.email.as_str()).collect();
    let truth = fs::read_to_string(fixtures().join("documented.truth.jsonl")).unwrap();
    let lines = truth.lines().filter(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        kept.contains(row["email"].as_str().unwrap())
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

on_both_engines! {
    async fn real_django_accepts_every_password_of_an_export(engine: Engine) {
        let django = Django::from_fixture(Model::Documented);
        let store = TestDatabase::new(if engine == Engine::Sqlite { Engine::Postgres } else { Engine::Sqlite });
        import(&django, &store, &RESOLVE_ALL_CONFLICTS);
        let exported_to = TestDatabase::new(engine);

        let exported = kairos(&["export", "django", "--database-url", store.url(), "--to", exported_to.url()]);

        assert!(exported.status.success(), "{}", stderr(&exported));
        assert!(stdout(&exported).contains(&format!("exported {IMPORTED_USERS} users")), "{}", stdout(&exported));
        let truth = django.path("expected.jsonl");
        let expected = expected(&django);
        assert!(expected.lines().count() > 215);
        fs::write(&truth, expected).unwrap();
        let checked = Command::new(python_path())
            .arg(fixtures().join("check.py"))
            .args(["--db", exported_to.url(), "--truth", truth.to_str().unwrap()])
            .args(["--columns", "--no-plaintext", "--require", "bcrypt_sha256", "--all-wrong-every", "10"])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}{}", stdout(&checked), stderr(&checked));
    }

    async fn a_comparison_with_an_export_finds_what_django_has_changed_since(engine: Engine) {
        let server = TestServer::start(engine).await;
        let (ada, bob) = (server.member("ada").await, server.member("bob").await);
        assert!(server.command(&["user", "disable", &bob.auth_token]).output().unwrap().status.success());
        let exported_to = TestDatabase::new(Engine::Sqlite);
        let verify = || server.command(&["import", "verify", "--from", exported_to.url()]).output().unwrap();
        assert!(server.command(&["export", "django", "--to", exported_to.url()]).output().unwrap().status.success());

        let agreed = verify();

        assert!(agreed.status.success() && stdout(&agreed).contains("source and store agree"), "{agreed:?}");
        assert!(!stdout(&agreed).contains("note"), "{}", stdout(&agreed));
        for change in ["password = '!new'", "username = 'lovelace'", "is_verified = 0", "email = 'new@example.com'"] {
            let rows = "CREATE TABLE kept AS SELECT * FROM core_user";
            let row = format!("auth_token = '{}'", ada.auth_token.replace('-', ""));
            exported_to.execute(&format!("{rows}; UPDATE core_user SET {change} WHERE {row}"));
            let differing = verify();
            assert!(!differing.status.success(), "{change}: {differing:?}");
            let counts = if change.starts_with("email") { "1 rows have no user, and 0 rows differ" } else { "0 rows have no user, and 1 rows differ" };
            assert!(stderr(&differing).contains(counts), "{change}: {}", stderr(&differing));
            exported_to.execute("DELETE FROM core_user; INSERT INTO core_user SELECT * FROM kept; DROP TABLE kept");
        }
    }

    async fn imported_rows_agree_with_their_export_to_another_engine(engine: Engine) {
        let (other, store) = (if engine == Engine::Sqlite { Engine::Postgres } else { Engine::Sqlite }, TestDatabase::new(engine));
        import(&Django::small(engine, 3), &store, &[]);
        let target = TestDatabase::new(other);
        assert!(kairos(&["export", "django", "--database-url", store.url(), "--to", target.url()]).status.success());

        let agreed = kairos(&["import", "verify", "--from", target.url(), "--to", store.url()]);

        assert!(agreed.status.success() && stdout(&agreed).contains("source and store agree"), "{agreed:?}");
        assert!(stdout(&agreed).contains("states     unchanged 3"), "{}", stdout(&agreed));
    }

    async fn an_export_refuses_a_target_with_rows(engine: Engine) {
        let store = TestDatabase::new(Engine::Sqlite);
        import(&Django::small(Engine::Sqlite, 3), &store, &[]);
        let target = TestDatabase::new(engine);
        let export = ["export", "django", "--database-url", store.url(), "--to", target.url()];
        assert!(kairos(&export).status.success());

        let (error, _) = refused(&export);

        assert!(error.contains("already has rows"), "{error}");
        assert_eq!(target.count("core_user"), 3);
    }

    async fn a_disabled_user_is_exported_with_an_unusable_password(engine: Engine) {
        let server = TestServer::start(engine).await;
        let (ada, bob) = (server.member("ada").await, server.member("bob").await);
        assert!(server.command(&["user", "disable", &ada.auth_token]).output().unwrap().status.success());
        let exported_to = TestDatabase::new(Engine::Sqlite);

        let exported = server.command(&["export", "django", "--to", exported_to.url()]).output().unwrap();

        assert!(stdout(&exported).contains("1 of them are disabled"), "{exported:?}");
        let password = |token: &str| exported_to.rows(&format!("SELECT password AS value FROM core_user WHERE auth_token = '{}'", token.replace('-', "")));
        assert!(password(&ada.auth_token)[0].starts_with('!'));
        assert!(password(&bob.auth_token)[0].starts_with("bcrypt_sha256$$2b$04$"));
    }

    async fn an_export_fills_only_an_empty_table_of_the_documented_form(engine: Engine) {
        let store = TestDatabase::new(Engine::Sqlite);
        import(&Django::small(Engine::Sqlite, 3), &store, &[]);
        let empty = Django::fresh(engine, Model::Documented, &["--only-bulk"]);
        let other = Django::fresh(engine, Model::WithoutTimestamps, &["--only-bulk"]);
        let export = |to: &Django| ["export", "django", "--database-url", store.url(), "--to", to.url()].map(str::to_owned);

        let written = kairos(&export(&empty).each_ref().map(String::as_str));
        let (error, _) = refused(&export(&other).each_ref().map(String::as_str));

        assert!(written.status.success(), "{}", stderr(&written));
        assert!(error.contains("created_at and updated_at"), "{error}");
        // The next row that Django inserts gets a new key.
        let token = if engine == Engine::Sqlite { "0e1f3a527f5b4a4e9d5b0c5a5b0b7f11" } else { "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11" };
        empty.execute(&format!(
            "INSERT INTO core_user (username, email, password, is_verified, auth_token, created_at, updated_at) \
             VALUES ('late', 'late@example.com', '!', {}, '{token}', '2026-01-01', '2026-01-01')",
            if engine == Engine::Sqlite { "1" } else { "true" }
        ));
    }
}
