//! The audit trail, read with `kairos-identity audit` as an operator reads it.

use kairos_identity::{
    callers::ServiceToken,
    proto::{LoginRequest, ResendVerificationEmailRequest, VerifyEmailRequest},
};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{
    audit::{AuditLine, RECORDED_LIMIT, audit, audit_with_own_reads, count},
    engine::{Engine, TestDatabase},
    mail::verification_token,
    people::{PASSWORD, address, by_username, from, login, registration},
    private_file,
    program::stderr,
    server::TestServer,
    sessions::with_bearer,
    wait::until,
};

fn decisions(lines: &[AuditLine]) -> Vec<String> {
    lines.iter().map(AuditLine::decision).collect()
}

/// Waits until the audit trail contains exactly these decisions, each at least once and in any order, and
/// returns its lines. Refusals are recorded later than actions, and equal refusals within a second become one
/// row.
async fn assert_decisions(
    server: &TestServer,
    arguments: &[&str],
    mut expected: Vec<&str>,
) -> Vec<AuditLine> {
    expected.sort_unstable();
    let mut found = Vec::new();
    let all = async || {
        found = audit(server, arguments);
        let mut found = decisions(&found);
        found.sort_unstable();
        found.dedup();
        (found == expected).then_some(())
    };
    until(&format!("the audit trail contains exactly {expected:?}"), RECORDED_LIMIT, all).await;
    found
}

/// Returns a request with `message` and the address and user agent of an end user.
fn from_user<T>(message: T) -> Request<T> {
    let mut request = from("192.0.2.7", message);
    request.metadata_mut().insert("kairos-client-agent", "Mozilla/5.0\t(X11)".parse().unwrap());
    request
}

on_both_engines! {
    async fn each_decision_about_an_account_is_recorded_as_an_event(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2")
            .with_env("KAIROS_IDENTITY_CLIENT_RESENDS_MAX", "2")
            .start()
            .await;
        let mut client = server.client().await;
        let ada = client.register(from_user(registration("ada"))).await.unwrap().into_inner().user.unwrap().auth_token;
        client.register(from_user(registration("ada"))).await.unwrap_err();
        client.login(from_user(login("ada", PASSWORD))).await.unwrap_err();
        let resend = |name| from_user(ResendVerificationEmailRequest { email: address(name), return_mail_token: false });
        let link = verification_token(&server, &address("ada")).await;
        client.verify_email(from_user(VerifyEmailRequest { token: link.clone() })).await.unwrap();
        client.verify_email(from_user(VerifyEmailRequest { token: link })).await.unwrap_err();
        client.verify_email(from_user(VerifyEmailRequest { token: ada.clone() })).await.unwrap_err();
        client.resend_verification_email(resend("ada")).await.unwrap();
        client.resend_verification_email(resend("unknown")).await.unwrap();
        client.resend_verification_email(resend("ada")).await.unwrap_err();
        client.login(from_user(login("ada", PASSWORD))).await.unwrap();
        client.login(from_user(login("ada", "wrong"))).await.unwrap_err();
        client.login(from_user(login("ada", "wronger"))).await.unwrap_err();
        client.login(from_user(login("ada", PASSWORD))).await.unwrap_err();
        client.login(from_user(login("unknown", "wrong"))).await.unwrap_err();
        let about_ada = assert_decisions(&server, &["--user", &ada], vec![
            "user_created OK",
            "authn_login_fail EMAIL_NOT_VERIFIED",
            "user_updated OK",
            "authn_token_create_fail NO_USER_TO_MAIL",
            "excess_rate_limit_exceeded TOO_MANY_ATTEMPTS",
            "authn_login_success OK",
            "authn_login_fail INVALID_CREDENTIALS",
            "authn_login_fail_max TOO_MANY_ATTEMPTS",
        ]).await;
        assert_decisions(&server, &["--kind", "user_create_fail", "--kind", "user_update_fail"], vec![
            "user_create_fail EMAIL_ALREADY_EXISTS",
            "user_update_fail EMAIL_ALREADY_VERIFIED",
            "user_update_fail INVALID_TOKEN",
        ]).await;
        for verb in [&["unlock", "ada"][..], &["delete", "ada", "--yes"]] {
            assert!(server.command(&[&["user"], verb].concat()).output().unwrap().status.success());
        }
        let by_operator = audit(&server, &["--caller", "command-line"]);
        assert_eq!(decisions(&by_operator), ["authn_login_unlock OK", "user_deleted OK"]);
        let success = about_ada.iter().find(|line| line.kind == "authn_login_success").unwrap();
        assert_eq!((&*success.user, &*success.caller, &*success.address), (&*ada, "anybody", "192.0.2.7"));
        assert_eq!(success.agent.as_deref(), Some("Mozilla/5.0\u{fffd}(X11)"));
        assert!(success.text.ends_with("\tagent=Mozilla/5.0\u{fffd}(X11)"), "{success:?}");
        let wrong: Vec<_> = about_ada.iter().filter(|line| line.outcome == "INVALID_CREDENTIALS").cloned().collect();
        assert_eq!(count(&wrong), 2, "{wrong:?}");
        for line in audit(&server, &[]) {
            for secret in [PASSWORD, "ada@", "wrong"] {
                assert!(!line.text.contains(secret), "{secret}: {line:?}");
            }
        }
    }

    async fn the_log_contains_the_same_events(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await.auth_token;
        let mut client = server.client().await;
        client.login(from_user(login("ada", PASSWORD))).await.unwrap();
        client.login(from_user(login("ada", "wrong"))).await.unwrap_err();

        let log = server.logged("\"event\":\"authn_login_fail\"").await;

        let events: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["target"] == "audit")
            .collect();
        let recorded: Vec<_> = events.iter().map(|line| (line["event"].as_str().unwrap(), line["user"].as_str().unwrap())).collect();
        let kinds = ["user_created", "user_updated", "authn_login_success", "authn_login_fail"];
        assert_eq!(recorded, kinds.map(|kind| (kind, ada.as_str())));
        assert_eq!(events[3]["client"], "192.0.2.7");
        assert_eq!(events[3]["reason"], "INVALID_CREDENTIALS");
        let same_call = log.lines().filter(|line| line.contains(events[3]["request_id"].as_str().unwrap())).count();
        assert_eq!(same_call, 2, "the event and the log line of the call have the same request id");
    }

    async fn a_flood_of_refusals_is_counted_and_recorded_in_few_rows(engine: Engine) {
        const CALLS: usize = 2_000;
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_AUDIT_REFUSALS_MAX", "10")
            .with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "1")
            .start()
            .await;
        server.client().await.login(login("unknown", "wrong")).await.unwrap_err();
        let mut calls = JoinSet::new();
        for connection in 0..8 {
            let mut client = server.client().await;
            calls.spawn(async move {
                for number in 0..CALLS / 8 {
                    // Each call has another account and another client address.
                    let email = format!("user{number}-{connection}@example.com");
                    let address = format!("192.0.{connection}.{number}");
                    let request = from(&address, LoginRequest { email, password: "wrong".into() });
                    client.login(request).await.unwrap_err();
                }
            });
        }
        let began = std::time::Instant::now();
        calls.join_all().await;
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();

        let all = async || Some(audit(&server, &["--kind", "authn_login_fail_max"])).filter(|lines| count(lines) == CALLS);
        let lines = until("every refusal is counted", RECORDED_LIMIT, all).await;
        // At most ten rows a second for distinct refusals and one for the rest; two seconds more for the
        // edges.
        assert!(lines.len() <= 11 * (seconds + 2), "{} rows in {seconds} s", lines.len());
    }

    async fn pending_refusals_are_recorded_at_shutdown(engine: Engine) {
        let mut server = TestServer::start(engine).await;
        server.client().await.login(login("unknown", "wrong")).await.unwrap_err();
        server.terminate();
        assert!(server.wait().await.success());

        assert_eq!(decisions(&audit(&server, &[])), ["authn_login_fail INVALID_CREDENTIALS"]);
    }

    async fn reads_and_refused_commands_of_the_command_line_are_recorded(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await.auth_token;
        let run = |arguments: &[&str]| server.command(arguments).output().unwrap().status.success();
        assert!(run(&["user", "show", "ada"]) && run(&["user", "list"]) && run(&["audit", "--user", &ada]));
        let refused = [
            "show", "verify", "unverify", "disable", "enable", "end-sessions", "reset-password", "unlock", "delete",
        ];
        for verb in refused {
            assert!(!run(&["user", verb, "unknown"]), "{verb}");
        }
        assert!(run(&["user", "disable", "ada"]) && !run(&["user", "reset-password", "ada"]));

        let lines = audit_with_own_reads(&server, &["--caller", "command-line"]);
        let shown: Vec<_> = lines.iter().map(|line| (&*line.kind, &*line.outcome, &*line.user)).collect();
        let unknown = [
            "sensitive_read_fail", "user_update_fail", "user_update_fail", "user_disable_fail", "user_enable_fail",
            "session_expire_fail", "authn_token_create_fail", "authn_login_unlock_fail", "user_delete_fail",
        ].map(|kind| (kind, "USER_NOT_FOUND", "-"));
        let first = [("sensitive_read", "OK", ada.as_str()), ("sensitive_read", "OK", "-"), ("sensitive_read", "OK", &ada)];
        let last = [("user_disabled", "OK", ada.as_str()), ("authn_token_create_fail", "ACCOUNT_DISABLED", &ada)];
        assert_eq!(shown, [&first[..], &unknown, &last].concat());
        assert_eq!(lines[0].resource.as_deref(), Some("user show"));
    }

    async fn since_and_until_take_a_timestamp_or_a_duration(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        server.client().await.find_user(by_username("ada")).await.unwrap();

        assert_decisions(&server, &["--since", "1h"], vec!["user_created OK", "sensitive_read OK"]).await;
        assert_eq!(decisions(&audit(&server, &["--until", "1h"])), [""; 0]);
        assert_eq!(decisions(&audit(&server, &["--since", "2026-01-01T00:00:00Z", "--until", "2526-01-01T00:00:00Z"])).len(), 2);
        let wrong = server.command(&["audit", "--since", "yesterday"]).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2));
        assert!(stderr(&wrong).contains("'--since <TIME>': expected a time such as"));
    }

    async fn rejected_callers_and_callers_file_changes_are_recorded(engine: Engine) {
        let (agent, stranger) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let folder = tempfile::tempdir().unwrap();
        let callers = folder.path().join("callers.toml");
        let entry = |name: &str| {
            let hash = agent.hash();
            let methods = "\"IdentityService/FindUser\", \"IdentityService/Login\"";
            format!("[{name}]\ntoken-hashes = [\"{hash}\"]\nmethods = [{methods}]\nuser-fields = []\n")
        };
        private_file::write(&callers, entry("agent"));
        let server = TestServer::builder(engine).with_args(&["--callers", callers.to_str().unwrap()]).start().await;
        let mut client = server.client().await;
        client.login(with_bearer(stranger.expose(), from_user(login("ada", PASSWORD)))).await.unwrap_err();
        client.login(with_bearer(agent.expose(), from_user(login("ada", PASSWORD)))).await.unwrap_err();
        client.register(with_bearer(agent.expose(), from_user(registration("ada")))).await.unwrap_err();
        private_file::write(&callers, entry("robot"));

        let lines = assert_decisions(&server, &[], vec![
            "authz_fail CALLER_UNKNOWN",
            "authn_login_fail INVALID_CREDENTIALS",
            "authz_fail CALLER_NOT_ALLOWED",
            "authz_change OK",
        ]).await;
        let line = |outcome: &str| lines.iter().find(|line| line.outcome == outcome).unwrap();
        let shown = |outcome: &str| {
            let line = line(outcome);
            (line.caller.as_str(), line.address.as_str(), line.resource.as_deref().unwrap_or_default())
        };
        let (log_in, register) =
            ("/kairos.identity.v1.IdentityService/Login", "/kairos.identity.v1.IdentityService/Register");
        assert_eq!(shown("CALLER_UNKNOWN"), ("nobody", "127.0.0.1", log_in));
        assert_eq!(shown("CALLER_NOT_ALLOWED"), ("agent", "127.0.0.1", register));
        assert_eq!(shown("OK"), ("callers-file", "-", "robot"));
        // The caller has no `tells-client`, so the address and user agent that it sends are ignored.
        let failed = line("INVALID_CREDENTIALS");
        assert_eq!((&*failed.caller, &*failed.address, &failed.agent), ("agent", "127.0.0.1", &None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_its_user_although_the_users_cannot_be_read_at_first() {
    let database = TestDatabase::new(Engine::Postgres);
    let server = TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT", "1s")
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2")
        .start()
        .await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    for _ in 0..2 {
        client.login(login("ada", "wrong")).await.unwrap_err();
    }
    let (other, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("BEGIN; LOCK TABLE core_user").await.unwrap();
    // The attempts are counted in another table, so this is refused while the users are locked.
    until("a login is throttled", RECORDED_LIMIT, async || {
        let refusal = client.login(login("ada", "wrong")).await.unwrap_err();
        (refusal.code() == Code::ResourceExhausted).then_some(())
    })
    .await;
    server.logged("audit events wait: the users that they are about cannot be read").await;
    other.batch_execute("COMMIT").await.unwrap();

    let lines = until("the refusal is recorded", RECORDED_LIMIT, async || {
        Some(audit(&server, &["--kind", "authn_login_fail_max"])).filter(|lines| !lines.is_empty())
    })
    .await;
    assert!(lines.iter().all(|line| line.user == ada.auth_token), "{lines:?}");
}
