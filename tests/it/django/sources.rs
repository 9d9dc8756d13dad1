//! Sources that cannot be imported: the command prints one error line and changes nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
};

use super::{Django, Model, import, refused};
use crate::support::{
    engine::{Engine, TestDatabase},
    postgres::Postgres,
    program::{error_line, program},
    tools::python_command,
};

/// Another process that holds a lock on a SQLite file until the value is dropped.
pub(super) struct FileLock(Child);

impl FileLock {
    pub(super) fn begin(django: &Django, statements: &str) -> Self {
        let path = django.url().strip_prefix("sqlite://").unwrap();
        let mut child = python_command("hold_lock.py")
            .args([path, statements])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

/// Asserts that an import from `from` fails with an error that contains `word`, and that no store file is
/// created.
#[track_caller]
fn assert_refused(from: &str, word: &str) {
    let store = TestDatabase::new(Engine::Sqlite);
    let (error, _) = refused(&["import", "django", "--from", from, "--to", store.url()]);
    assert!(error.contains(word), "{error}");
    assert!(!fs::exists(store.url().strip_prefix("sqlite://").unwrap()).unwrap(), "{error}");
}

fn file(django: &Django) -> &str {
    django.url().strip_prefix("sqlite://").unwrap()
}

#[test]
fn a_source_that_is_not_a_django_database_is_refused() {
    let django = Django::small(Engine::Sqlite, 1);
    let missing = format!("sqlite://{}", django.path("missing").display());
    assert_refused(&missing, "there is no database file");
    let other = django.path("other.txt");
    fs::write(&other, "not a database, though it is long enough to look like one".repeat(40)).unwrap();
    assert_refused(&format!("sqlite://{}", other.display()), "file is not a database");
    let malformed =
        super::kairos(&["import", "django", "--from", "mysql://a/b", "--to", "sqlite://store.sqlite3"]);
    let error = String::from_utf8_lossy(&malformed.stderr);
    assert_eq!(malformed.status.code(), Some(2), "{error}");
    assert!(error.contains("--from: expected sqlite:///folder/file"), "{error}");

    let empty = TestDatabase::new(Engine::Sqlite);
    empty.execute("CREATE TABLE auth_user (id INTEGER PRIMARY KEY)");
    assert_refused(empty.url(), "no table core_user");
    empty.execute("CREATE TABLE core_user (id INTEGER PRIMARY KEY, email TEXT, last_login TEXT)");
    assert_refused(empty.url(), "it has unknown columns (last_login)");
}

/// Plaintext passwords get hashes that last until the next login: for years, if it never comes.
#[test]
fn a_hash_cost_that_is_too_low_is_refused() {
    let (django, store) = (Django::small(Engine::Sqlite, 1), TestDatabase::new(Engine::Sqlite));
    let arguments = ["import", "django", "--from", django.url(), "--to", store.url()];
    let mut command = program(&arguments);
    let output = command.env_remove("KAIROS_IDENTITY_PASSWORD_INSECURE_LOW_COST").output().unwrap();
    let error = error_line(1, &output);
    for part in ["password.cost: below 10", "KAIROS_IDENTITY_PASSWORD_COST"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!fs::exists(store.url().strip_prefix("sqlite://").unwrap()).unwrap(), "{error}");
}

#[test]
fn a_database_of_this_service_is_refused_as_a_source() {
    let store = TestDatabase::new(Engine::Sqlite);
    assert!(super::kairos(&["migrate", "--database-url", store.url()]).status.success());
    // A column that only this service has.
    assert_refused(store.url(), "username_key");
}

#[test]
fn a_truncated_file_is_refused() {
    let django = Django::from_fixture(Model::WithoutTimestamps);
    let bytes = fs::read(file(&django)).unwrap();
    for kept in [bytes.len() - 4_096, bytes.len() / 2, 5_000] {
        fs::write(file(&django), &bytes[..kept]).unwrap();
        assert_refused(django.url(), "malformed");
    }
}

#[test]
fn an_import_waits_for_a_lock_of_django_and_then_reports_it() {
    let rollback = Django::small(Engine::Sqlite, 3);
    let lock = FileLock::begin(&rollback, "BEGIN EXCLUSIVE");
    assert_refused(rollback.url(), "database is locked");
    drop(lock);
    import(&rollback, &TestDatabase::new(Engine::Sqlite), &[]);

    let wal = Django::small(Engine::Sqlite, 3);
    wal.execute("PRAGMA journal_mode = WAL");
    let lock = FileLock::begin(
        &wal,
        "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM core_user WHERE id = 1",
    );
    assert_refused(wal.url(), "database is locked");
    drop(lock);
    let writing = FileLock::begin(&wal, "BEGIN IMMEDIATE; DELETE FROM core_user WHERE id = 1");
    let store = TestDatabase::new(Engine::Sqlite);
    import(&wal, &store, &[]);
    drop(writing);
    assert_eq!(
        store.count("core_user"),
        3,
        "a transaction that is not committed is not imported and does not block the import"
    );
}

#[test]
fn an_import_does_not_change_its_source() {
    let django = Django::from_fixture(Model::WithoutTimestamps);
    let before = fs::read(file(&django)).unwrap();
    import(&django, &TestDatabase::new(Engine::Sqlite), &super::RESOLVE_ALL_CONFLICTS);
    assert_eq!(fs::read(file(&django)).unwrap(), before);
    let folder = fs::read_dir(std::path::Path::new(file(&django)).parent().unwrap()).unwrap();
    assert_eq!(folder.count(), 1, "the import creates no file beside the source");
}

#[test]
fn an_unreachable_source_is_reported_without_its_password() {
    let store = TestDatabase::new(Engine::Sqlite);
    let from = "postgres://kairos:hunter2@127.0.0.1:1/x";
    let (error, _) = refused(&["import", "django", "--from", from, "--to", store.url()]);
    assert!(error.contains("not available") && !error.contains("hunter2"), "{error}");
}

#[test]
fn an_empty_postgresql_database_is_refused_as_a_source() {
    let database = Postgres::shared().create_database();
    assert_refused(database.url(), "no table core_user");
}

#[test]
fn an_older_form_of_the_table_is_read() {
    let django = Django::small(Engine::Sqlite, 3);
    django.execute(
        "ALTER TABLE core_user RENAME COLUMN username TO name; ALTER TABLE core_user RENAME COLUMN auth_token TO verification_token; \
         ALTER TABLE core_user DROP COLUMN updated_at",
    );
    let store = TestDatabase::new(Engine::Postgres);

    let printed = import(&django, &store, &[]);

    assert!(printed.contains("schema     older (name and verification_token)"), "{printed}");
    assert_eq!(store.count("core_user"), 3);
}

#[test]
fn rows_that_cannot_become_users_are_reported() {
    let django = Django::small(Engine::Sqlite, 4);
    django.execute(
        "UPDATE core_user SET auth_token = 'x' WHERE id = 1; UPDATE core_user SET email = '' WHERE id = 2; \
         UPDATE core_user SET username = CAST(x'ff' AS TEXT) WHERE id = 3",
    );
    let store = TestDatabase::new(Engine::Sqlite);

    let (_, printed) = refused(&["import", "django", "--from", django.url(), "--to", store.url()]);

    for line in [
        "unreadable: rows 1: its auth_token",
        "unreadable: rows 2: its email",
        "unreadable: rows 3: its username",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    assert_eq!(store.count("core_user"), 0);
}
