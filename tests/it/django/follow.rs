//! The source goes on being used while its users are taken over.

use std::{process::Stdio, time::Duration};

use super::{Django, command, sources::Locked, text};
use crate::support::{
    engine::{Engine, TestDatabase},
    wait::until,
};

const SOON: Duration = Duration::from_secs(30);

on_both_engines! {
    async fn new_and_changed_rows_follow_until_it_is_told_to_stop(engine: Engine) {
        let django = Django::small(Engine::Sqlite, 5);
        let store = TestDatabase::new(engine);
        let arguments = ["import", "django", "--from", django.url(), "--to", store.url(), "--follow", "--follow-interval", "1"];
        let following = command(&arguments)
            .env("KAIROS_IDENTITY_DATABASE_SQLITE_BUSY_TIMEOUT", "100ms")
            .stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let has = async |what: &str, query: &str| {
            until(what, SOON, async || {
                let made = store.try_execute("SELECT 1 FROM core_user").is_ok();
                (made && !store.rows(query).is_empty()).then_some(())
            })
            .await;
        };
        has("the users are there", "SELECT email AS value FROM core_user WHERE email = 'bulk0000004@example.com'").await;

        // As Django does: a registration, a change, and somebody whose email differs in case alone.
        django.execute(
            "INSERT INTO core_user (username, email, password, is_verified, auth_token, created_at, updated_at) VALUES \
             ('late', 'late@example.com', 'plum-Voyage-84-kettle', 1, '0e1f3a527f5b4a4e9d5b0c5a5b0b7f11', '2026-01-01 00:00:00', '2026-01-01 00:00:00'), \
             ('twice', 'LATE@example.com', 'plum-Voyage-84-kettle', 1, '0e1f3a527f5b4a4e9d5b0c5a5b0b7f12', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
        );
        django.execute("UPDATE core_user SET is_verified = 1, updated_at = '2026-02-02 00:00:00' WHERE id = 2");
        has("the registration follows", "SELECT email AS value FROM core_user WHERE email = 'late@example.com'").await;
        has("the change follows", "SELECT email AS value FROM core_user WHERE email = 'bulk0000001@example.com' AND is_verified").await;

        // Django holds its file for longer than is waited for: the round breaks, and the next one makes up for it.
        let lock = Locked::begin(&django, "BEGIN EXCLUSIVE");
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        drop(lock);
        django.execute("UPDATE core_user SET is_verified = 1, updated_at = '2026-02-03 00:00:00' WHERE id = 3");
        has("what comes after it follows", "SELECT email AS value FROM core_user WHERE email = 'bulk0000002@example.com' AND is_verified").await;

        let stop = format!("kill -TERM {}", following.id());
        assert!(std::process::Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        let ended = following.wait_with_output().unwrap();

        let (printed, errors) = (text(&ended.stdout), text(&ended.stderr));
        assert!(printed.contains("written    6 imported, 2 updated"), "{printed}");
        assert!(printed.contains("duplicate_email") || printed.contains("email_taken_here"), "{printed}");
        assert!(errors.contains("A round broke; the next one makes up for it"), "{errors}");
        assert_eq!(ended.status.code(), Some(1), "a conflict is left");
        assert!(errors.contains("1 conflicts are open, and the others were imported"), "{errors}");
    }
}
