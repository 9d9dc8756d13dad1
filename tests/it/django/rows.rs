//! Rows as they are: values that Django's columns can hold and its forms do not write.

use std::{
    fs,
    path::{Path, PathBuf},
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

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
    let sqlite = Django::small(Engine::Sqlite, 6);
    sqlite.execute(
        "UPDATE core_user SET created_at = '9999-12-31 23:59:59-01:00' WHERE id = 1; \
         UPDATE core_user SET updated_at = '10000-01-01 00:00:00' WHERE id = 2; \
         UPDATE core_user SET created_at = CAST(x'ff' AS TEXT) WHERE id = 3; \
         UPDATE core_user SET updated_at = 1700000000 WHERE id = 4; \
         UPDATE core_user SET created_at = '2023-03-26 00:59:59.1234567' WHERE id = 5; \
         UPDATE core_user SET created_at = x'323032332d30332d32362030303a35393a3539' WHERE id = 6",
    );
    let postgres = Django::small(Engine::Postgres, 4);
    postgres.execute(
        "UPDATE core_user SET created_at = '10000-01-01' WHERE id = 1; UPDATE core_user SET updated_at = 'infinity' WHERE id = 2; \
         UPDATE core_user SET created_at = '0044-03-15 BC' WHERE id = 3; UPDATE core_user SET updated_at = '-infinity' WHERE id = 4",
    );
    let findings = [
        "unreadable: rows 1: its created_at",
        "unreadable: rows 2: its updated_at",
        "unreadable: rows 3: its created_at",
        "unreadable: rows 4: its updated_at",
        "unreadable: rows 5: its created_at",
        "unreadable: rows 6: its created_at",
    ];
    assert_found(&sqlite, &findings);
    assert_found(&postgres, &findings[..4]);
}

#[test]
fn a_text_that_is_not_utf_8_is_a_finding_of_its_row_on_both_engines() {
    let sqlite = Django::small(Engine::Sqlite, 2);
    sqlite.execute("UPDATE core_user SET password = CAST(x'ff' AS TEXT) WHERE id = 2");
    assert_found(&sqlite, &["unreadable: rows 2: its password"]);

    // Bytes that are no text in UTF-8, in the encoding of the database, and in none.
    for (encoding, is_declared_later) in [("SQL_ASCII", false), ("SQL_ASCII", true), ("WIN1252", false)] {
        let database = Postgres::shared().create_database_in(encoding);
        Postgres::shared().psql(
            database.name(),
            "CREATE TABLE core_user (id integer PRIMARY KEY, username varchar(150), email varchar(254), password varchar(128), \
             is_verified boolean, auth_token uuid, created_at timestamptz, updated_at timestamptz); \
             INSERT INTO core_user \
             SELECT id, 'u' || id, 'u' || id || '@example.com', 'pw', true, gen_random_uuid(), now(), now() \
             FROM generate_series(1, 5) AS id; \
             UPDATE core_user SET username = convert_from('\\x6181', 'SQL_ASCII') WHERE id = 2; \
             UPDATE core_user SET password = convert_from('\\x81', 'SQL_ASCII') WHERE id = 4",
        );
        if is_declared_later {
            // As in a cluster that pg_upgrade or a restore has given an encoding that its bytes do not have.
            let of_database = format!("WHERE datname = '{}'", database.name());
            let utf_8 = "UPDATE pg_database SET encoding = pg_char_to_encoding('UTF8')";
            Postgres::shared().psql("postgres", &format!("{utf_8} {of_database}"));
        }
        let store = TestDatabase::new(Engine::Sqlite);
        let arguments = ["import", "django", "--from", database.url(), "--to", store.url()];
        for more in [&["--dry-run"][..], &[]] {
            let (_, printed) = refused(&[&arguments[..], more].concat());
            for finding in ["unreadable: rows 2: its username", "unreadable: rows 4: its password"] {
                assert!(printed.contains(finding), "{encoding} {is_declared_later}: {printed}");
            }
            assert_eq!(printed.matches("unreadable: ").count(), 2, "{printed}");
        }
    }
}

#[test]
fn bytes_in_a_column_of_texts_are_findings_of_their_rows() {
    for (column, bytes) in [("username", "x'6162'"), ("password", "x'6162'"), ("email", "x'614062'")] {
        let sqlite = Django::small(Engine::Sqlite, 2);
        sqlite.execute(&format!("UPDATE core_user SET {column} = {bytes} WHERE id = 2"));
        assert_found(&sqlite, &[&format!("unreadable: rows 2: its {column}")]);
    }
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

#[test]
fn a_source_with_changes_in_its_wal_is_read_and_no_file_stays_behind() {
    let django = Django::small(Engine::Sqlite, 3);
    django.execute("PRAGMA journal_mode = WAL");
    let path = Path::new(django.url().strip_prefix("sqlite://").unwrap());
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    // Both files while a program has the database open, as a snapshot of the disk has them.
    let mut writer = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    writer.batch_execute("SELECT count(*) FROM core_user").unwrap();
    django.execute("UPDATE core_user SET username = 'in-the-wal' WHERE id = 2");
    let (pages, wal) = (fs::read(path).unwrap(), fs::read(beside("-wal")).unwrap());
    drop(writer);
    assert!(!wal.is_empty());
    fs::write(path, &pages).unwrap();
    fs::write(beside("-wal"), &wal).unwrap();

    let store = TestDatabase::new(Engine::Sqlite);
    import(&django, &store, &["--dry-run"]);
    import(&django, &store, &[]);

    assert!(users(&store).iter().any(|user| user.contains("in-the-wal")), "{:?}", users(&store));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "the database and its -wal file");
    assert_eq!((fs::read(path).unwrap(), fs::read(beside("-wal")).unwrap()), (pages, wal));
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
