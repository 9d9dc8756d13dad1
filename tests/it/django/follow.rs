//! `import django --follow`: Django still uses the source while its users are imported.

use std::{process::Stdio, time::Duration};

use super::{Django, sources::FileLock};
use crate::support::{
    engine::{Engine, TestDatabase},
    program::{program, stderr, stdout},
    wait::until,
};

const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

on_both_engines! {
    async fn new_and_changed_rows_are_imported_until_the_import_is_stopped(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 5);
        let store = TestDatabase::new(engine);
        let arguments = ["import", "django", "--from", django.url(), "--to", store.url(), "--follow", "--follow-interval", "1"];
        let following = program(&arguments)
            .env("KAIROS_IDENTITY_DATABASE_SQLITE_BUSY_TIMEOUT", "100ms")
            .stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let has = async |what: &str, query: &str| {
            until(what, ARRIVAL_LIMIT, async || {
                let made = store.try_execute("SELECT 1 FROM core_user").is_ok();
                (made && !store.rows(query).is_empty()).then_some(())
            })
            .await;
        };
        has("the first users are imported", "SELECT email AS value FROM core_user WHERE email = 'bulk0000004@example.com'").await;

        // Changes as Django makes them: two registrations whose emails differ only in case, and a verified
        // email.
        django.execute(
            "INSERT INTO core_user (username, email, password, is_verified, auth_token, created_at, updated_at) VALUES \
             ('late', 'late@example.com', 'plum-Voyage-84-kettle', 1, '0e1f3a527f5b4a4e9d5b0c5a5b0b7f11', '2026-01-01 00:00:00', '2026-01-01 00:00:00'), \
             ('twice', 'LATE@example.com', 'plum-Voyage-84-kettle', 1, '0e1f3a527f5b4a4e9d5b0c5a5b0b7f12', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
        );
        django.execute("UPDATE core_user SET is_verified = 1, updated_at = '2026-02-02 00:00:00' WHERE id = 2");
        has("the registration is imported", "SELECT email AS value FROM core_user WHERE email = 'late@example.com'").await;
        has("the change is imported", "SELECT email AS value FROM core_user WHERE email = 'bulk0000001@example.com' AND is_verified").await;

        // Django locks its file for longer than the import waits: the round fails, and a later round imports
        // the changes.
        let lock = FileLock::begin(&django, "BEGIN EXCLUSIVE");
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        drop(lock);
        django.execute("UPDATE core_user SET is_verified = 1, updated_at = '2026-02-03 00:00:00' WHERE id = 3");
        has("a change after the lock is imported", "SELECT email AS value FROM core_user WHERE email = 'bulk0000002@example.com' AND is_verified").await;

        // Written during the pause before the stop: the last round imports it.
        django.execute("UPDATE core_user SET is_verified = 1, updated_at = '2026-02-04 00:00:00' WHERE id = 4");
        let stop = format!("kill -TERM {}", following.id());
        assert!(std::process::Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        let ended = following.wait_with_output().unwrap();

        let (printed, errors) = (stdout(&ended), stderr(&ended));
        assert!(printed.contains("written    6 imported, 3 updated"), "{printed}");
        assert!(errors.contains("stopping after a last round"), "{errors}");
        assert!(printed.contains("duplicate_email") || printed.contains("email_taken_here"), "{printed}");
        assert!(errors.contains("Import round failed; the next round retries it"), "{errors}");
        assert_eq!(ended.status.code(), Some(1), "a conflict is open");
        assert!(errors.contains("1 conflicts are open, and the other rows were imported"), "{errors}");
    }
}

/// The rows of a file that was replaced are not those that Django writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_replaced_is_not_complete() {
    let (django, store) = (Django::small(Engine::Sqlite, 2), TestDatabase::new(Engine::Sqlite));
    let file = django.url().strip_prefix("sqlite://").unwrap().to_owned();
    let arguments = ["import", "django", "--from", django.url(), "--to", store.url(), "--follow"];
    let following = program(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the users are imported", ARRIVAL_LIMIT, async || {
        let made = store.try_execute("SELECT 1 FROM core_user").is_ok();
        (made && store.count("core_user") == 2).then_some(())
    })
    .await;

    std::fs::copy(&file, format!("{file}.copy")).unwrap();
    std::fs::rename(format!("{file}.copy"), &file).unwrap();
    let stop = format!("kill -INT {}", following.id());
    assert!(std::process::Command::new("sh").args(["-c", &stop]).status().unwrap().success());
    let ended = following.wait_with_output().unwrap();

    let errors = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    assert!(errors.contains("was moved or replaced while it was open"), "{errors}");
}
