//! Password attempts count if, and only if, the password was compared and is wrong: whatever the caller, the
//! database or the process does in between.

use std::time::Duration;

use kairos_identity::proto::{
    ChangePasswordRequest, LoginRequest, account_service_client::AccountServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{NEW_PASSWORD, PASSWORD, address, login},
    server::{Builder, TestServer},
    sessions::{acting, age, log_in},
    wait::until,
};

/// A deadline that ends while a hash of cost 13 is computed.
const SHORT: Duration = Duration::from_millis(200);

/// A bcrypt cost at which a hash takes about 15 ms: concurrent attempts overlap, and dozens of them take less
/// than a second.
const BRIEF_HASH_COST: &str = "8";

/// Time limit for calls whose callers have gone, on a busy machine.
const SETTLED_LIMIT: Duration = Duration::from_secs(30);

/// Returns the settings of a service with one hashing thread, on which a hash takes half a second, and with a
/// log that shows each comparison.
fn slow_hashes(database: &TestDatabase) -> Builder {
    TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_PASSWORD_COST", "13")
        .with_env("KAIROS_IDENTITY_PASSWORD_THREADS", "1")
        .with_env("KAIROS_IDENTITY_LOG_LEVEL", "info,kairos_identity::password=debug")
}

/// Returns a request whose caller waits only for [`SHORT`].
fn hurried<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(SHORT);
    request
}

fn comparisons(server: &TestServer) -> usize {
    server.log().matches("Password check started").count()
}

/// Returns `KIND COUNT` for everything with counted attempts, except the limits on mails.
fn counted(database: &TestDatabase) -> Vec<String> {
    let sql = "SELECT kind || ' ' || attempts AS value FROM core_throttle \
               WHERE attempts > 0 AND kind <> 'any-mail' AND kind NOT LIKE '%mails-to' ORDER BY kind";
    database.rows(sql)
}

/// Waits until no attempt is in progress and the queue has been idle for a moment.
async fn settled(server: &TestServer, database: &TestDatabase) {
    let mut seen = (usize::MAX, 0);
    until("every attempt is settled", SETTLED_LIMIT, async || {
        if database.count("core_password_attempt") > 0 {
            return None;
        }
        tokio::time::sleep(SHORT).await;
        let now = (comparisons(server), database.count("core_password_attempt"));
        let is_idle = now == seen && now.1 == 0;
        seen = now;
        is_idle.then_some(())
    })
    .await;
}

/// Returns the number of recorded events with this kind and reason (or `OK`), those with `count=N` N times.
fn recorded(database: &TestDatabase, kind: &str, reason: &str) -> usize {
    let sql = "SELECT CAST(coalesce(sum(count), 0) AS VARCHAR(20)) AS value FROM core_audit_event";
    database.rows(&format!("{sql} WHERE kind = '{kind}' AND coalesce(reason, 'OK') = '{reason}'"))[0]
        .parse()
        .unwrap()
}

/// Makes every statement of this kind on a table fail, as a full disk does, until [`mend`].
fn break_writes(database: &TestDatabase, statement: &str, table: &str) {
    database.execute(&match database.engine() {
        Engine::Sqlite => format!(
            "CREATE TRIGGER broken BEFORE {statement} ON {table} BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        ),
        Engine::Postgres => format!(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$; \
             CREATE TRIGGER broken BEFORE {statement} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()"
        ),
    });
}

fn mend(database: &TestDatabase, table: &str) {
    database.execute(&match database.engine() {
        Engine::Sqlite => "DROP TRIGGER broken".to_owned(),
        Engine::Postgres => format!("DROP TRIGGER broken ON {table}; DROP FUNCTION broken()"),
    });
}

on_both_engines! {
    async fn right_passwords_whose_callers_do_not_wait_do_not_lock_their_owner_out(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "3").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        for _ in 0..10 {
            client.login(hurried(login("ada", PASSWORD))).await.unwrap_err();
        }
        settled(&server, &database).await;
        assert_eq!(counted(&database), [""; 0]);
        client.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn cancelled_guesses_count_and_are_recorded_if_they_were_compared(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        for number in 0..10 {
            client.login(hurried(login("ada", &format!("guess {number}")))).await.unwrap_err();
        }
        settled(&server, &database).await;

        let compared = comparisons(&server);
        assert!(compared > 0);
        assert_eq!(counted(&database), [format!("account-password {compared}"), format!("any-password {compared}")]);
        until("each is in the audit trail", SETTLED_LIMIT, async || {
            // The calls themselves are recorded too, with DEADLINE_EXCEEDED or CANCELLED.
            (recorded(&database, "authn_login_fail", "INVALID_CREDENTIALS") == compared).then_some(())
        })
        .await;
    }

    async fn cancelled_logins_use_up_the_total_only_by_comparisons(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database).with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "60").start().await;
        server.member("ada").await;
        // Its caller waits, so at least one password is compared and the total is not 0.
        server.client().await.login(login("unknown", "wrong")).await.unwrap_err();
        let mut calls = JoinSet::new();
        for number in 0..100 {
            let mut client = server.client().await;
            let request = hurried(login(&format!("user{number}"), "wrong"));
            calls.spawn(async move { client.login(request).await.unwrap_err() });
        }
        calls.join_all().await;
        settled(&server, &database).await;

        let of_all = counted(&database).into_iter().filter(|counted| counted.starts_with("any-password"));
        assert_eq!(of_all.collect::<Vec<_>>(), [format!("any-password {}", comparisons(&server))]);
        assert!(comparisons(&server) < 60);
        server.client().await.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn forty_right_logins_at_once_leave_no_failure(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database).with_env("KAIROS_IDENTITY_PASSWORD_COST", BRIEF_HASH_COST).start().await;
        server.member("ada").await;
        let mut calls = JoinSet::new();
        for _ in 0..40 {
            let mut client = server.client().await;
            calls.spawn(async move { client.login(login("ada", PASSWORD)).await });
        }
        let answers = calls.join_all().await;

        assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 10);
        for refusal in answers.into_iter().filter_map(Result::err) {
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
        settled(&server, &database).await;
        assert_eq!(counted(&database), [""; 0]);
        server.client().await.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn a_right_password_does_not_count_if_its_session_cannot_be_written(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let mut client = server.client().await;

        break_writes(&database, "INSERT", "core_session");
        for _ in 0..12 {
            assert_eq!(client.login(login("ada", PASSWORD)).await.unwrap_err().code(), Code::Unavailable);
        }
        mend(&database, "core_session");

        settled(&server, &database).await;
        assert_eq!(counted(&database), [""; 0]);
        client.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn an_outcome_is_settled_once_the_database_can_write_again(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        server.member("bob").await;
        let mut client = server.client().await;

        break_writes(&database, "DELETE", "core_password_attempt");
        for _ in 0..2 {
            client.login(login("ada", "wrong")).await.unwrap_err();
            client.login(login("bob", PASSWORD)).await.unwrap_err();
        }
        assert_eq!(counted(&database), [""; 0]);
        mend(&database, "core_password_attempt");

        settled(&server, &database).await;
        assert_eq!(counted(&database), ["account-password 2", "any-password 2"]);
    }

    async fn the_reservation_of_a_killed_instance_ends_in_a_minute_uncounted(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut server = slow_hashes(&database)
            // A hash takes about one second, so the process is killed while it is computed.
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", "14")
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1")
            .start()
            .await;
        server.member("ada").await;
        let mut client = server.client().await;
        let login_of_a_dead_process = tokio::spawn(async move { client.login(login("ada", PASSWORD)).await });
        server.logged("Password check started").await;
        server.kill_9();
        login_of_a_dead_process.await.unwrap().unwrap_err();
        server.restart().await;
        let mut client = server.client().await;

        // The password may have been compared, so the attempt occupies its place for a while.
        let refusal = client.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        age(&database, "core_password_attempt", "expires_at", 60);
        client.login(login("ada", PASSWORD)).await.unwrap();
        assert_eq!(counted(&database), [""; 0]);
    }

    async fn a_change_is_completed_after_its_caller_has_gone(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let message = ChangePasswordRequest { current_password: PASSWORD.into(), new_password: NEW_PASSWORD.into() };
        let mut request = acting(&tokens, message);
        request.set_timeout(SHORT);

        let mut accounts = AccountServiceClient::new(server.channel().await);
        accounts.change_password(request).await.unwrap_err();

        until("the change is recorded", SETTLED_LIMIT, async || {
            (recorded(&database, "authn_password_change", "OK") == 1).then_some(())
        })
        .await;
        server.client().await.login(login("ada", NEW_PASSWORD)).await.unwrap();
    }

    async fn no_more_passwords_are_compared_at_once_than_may_fail(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = slow_hashes(&database)
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", BRIEF_HASH_COST)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "3")
            .start()
            .await;
        let mut calls = JoinSet::new();
        for number in 0..20 {
            let mut client = server.client().await;
            let request = LoginRequest { email: address("ada"), password: format!("guess {number}") };
            calls.spawn(async move { client.login(request).await.unwrap_err() });
        }
        calls.join_all().await;
        settled(&server, &database).await;
        assert_eq!(comparisons(&server), 3);
    }
}
