//! Rows as they are: values that Django's columns can hold and its forms do not write.

use std::{fs, path::Path};

use super::{Django, import, kairos, refused, users};
use crate::support::{
    engine::{Engine, TestDatabase},
    postgres::Postgres,
    program::stdout,
};

/// Asserts that a rehearsal and a run report these findings and import nothing.
#[track_caller]
fn assert_found(django: &Django, findings: &[&str]) {
    let store = TestDatabase::new(Engine::Sqlite);
    let arguments = ["import", "django", "--from", django.url(), "--to", store.url()];
    for more in [&["--dry-run"][..], &[]] {
        let (error, printed) = refused(&[&arguments[..], more].concat());
        assert!(
            error.contains(&format!("{} conflicts are open, and nothing was imported", findings.len())),
            "{error}"
        );
        for finding in findings {
            assert!(printed.contains(finding), "{more:?}: {finding}: {printed}");
        }
    }
}

#[test]
fn booleans_that_are_stored_as_text_are_taken_and_reported_and_others_are_refused() {
    let django = Django::small(Engine::Sqlite, 4);
    let set = |id: u32, value: &str| {
        django.execute(&format!("UPDATE core_user SET is_verified = {value} WHERE id = {id}"));
    };
    for (id, value) in [(1, "'True'"), (2, "'t'"), (3, "'False'"), (4, "'f'")] {
        set(id, value);
    }
    let store = TestDatabase::new(Engine::Sqlite);
    let report = django.path("report.json");
    import(&django, &store, &["--report", report.to_str().unwrap()]);
    let verified: Vec<bool> = users(&store).iter().map(|user| user.contains("|1|")).collect();
    assert_eq!(verified.iter().filter(|verified| **verified).count(), 2, "{verified:?}");
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("its is_verified is the text \\\"True\\\": it is read as true"), "{report}");

    for (id, value) in [(1, "'yes'"), (2, "2"), (3, "''"), (4, "x'01'")] {
        set(id, value);
    }
    let findings = [1, 2, 3, 4].map(|id| format!("unreadable: rows {id}: its is_verified"));
    assert_found(&django, &findings.each_ref().map(String::as_str));
}

#[test]
fn times_that_cannot_be_read_or_stored_are_findings_of_their_rows() {
    let sqlite = Django::small(Engine::Sqlite, 4);
    sqlite.execute(
        "UPDATE core_user SET created_at = '9999-12-31 23:59:59-01:00' WHERE id = 1; \
         UPDATE core_user SET updated_at = '10000-01-01 00:00:00' WHERE id = 2; \
         UPDATE core_user SET created_at = CAST(x'ff' AS TEXT) WHERE id = 3; \
         UPDATE core_user SET updated_at = 1700000000 WHERE id = 4",
    );
    let postgres = Django::small(Engine::Postgres, 4);
    postgres.execute(
        "UPDATE core_user SET created_at = '10000-01-01' WHERE id = 1; UPDATE core_user SET updated_at = 'infinity' WHERE id = 2; \
         UPDATE core_user SET created_at = '0044-03-15 BC' WHERE id = 3; UPDATE core_user SET updated_at = '-infinity' WHERE id = 4",
    );
    for django in [&sqlite, &postgres] {
        assert_found(
            django,
            &[
                "unreadable: rows 1: its created_at",
                "unreadable: rows 2: its updated_at",
                "unreadable: rows 3: its created_at",
                "unreadable: rows 4: its updated_at",
            ],
        );
    }
}

#[test]
fn a_text_that_is_not_utf_8_is_a_finding_of_its_row_on_both_engines() {
    let sqlite = Django::small(Engine::Sqlite, 2);
    sqlite.execute("UPDATE core_user SET password = CAST(x'ff' AS TEXT) WHERE id = 2");
    assert_found(&sqlite, &["unreadable: rows 2: its password"]);

    let database = Postgres::shared().create_database_without_encoding();
    Postgres::shared().psql(
        database.name(),
        "CREATE TABLE core_user (id integer PRIMARY KEY, username varchar(150), email varchar(254), password varchar(128), \
         is_verified boolean, auth_token uuid, created_at timestamptz, updated_at timestamptz); \
         INSERT INTO core_user VALUES (1, E'a\\xff', 'a@example.com', 'pw', true, gen_random_uuid(), now(), now()), \
         (2, 'b', 'b@example.com', 'pw', true, gen_random_uuid(), now(), now())",
    );
    let store = TestDatabase::new(Engine::Sqlite);
    let (_, printed) = refused(&["import", "django", "--from", database.url(), "--to", store.url()]);
    assert!(printed.contains("unreadable: rows 1: its username"), "{printed}");
}

#[test]
fn a_source_in_wal_mode_is_read_and_no_file_stays_behind() {
    let django = Django::small(Engine::Sqlite, 3);
    django.execute("PRAGMA journal_mode = WAL");
    let path = Path::new(django.url().strip_prefix("sqlite://").unwrap());
    let before = fs::read(path).unwrap();
    import(&django, &TestDatabase::new(Engine::Sqlite), &[]);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "only the database");
    assert_eq!(fs::read(path).unwrap(), before);
}

on_both_engines! {
    async fn users_are_found_by_the_names_that_they_kept(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 3);
        django.execute(
            "UPDATE core_user SET username = 'Ren\u{e9}@Home' WHERE id = 1; \
             UPDATE core_user SET username = 'a' || char(27) || ']0;title' || char(10) || 'forged' WHERE id = 2",
        );
        let store = TestDatabase::new(engine);
        import(&django, &store, &[]);
        let list = |text: &str| {
            let output = kairos(&["user", "list", "--text", text, "--database-url", store.url()]);
            stdout(&output)
        };
        for text in ["Ren\u{e9}@Home", "REN\u{c9}@H", "\u{e9}@home", "@home"] {
            assert!(list(text).contains("\tRen\u{e9}@Home\n") && list(text).lines().count() == 1, "{text}");
        }
        assert_eq!(list("ren_@home"), "", "wildcards are matched literally");
        let escaped = list("]0;TITLE");
        assert!(escaped.ends_with("a\\u{1b}]0;title\\nforged\n") && escaped.lines().count() == 1, "{escaped:?}");
    }
}
