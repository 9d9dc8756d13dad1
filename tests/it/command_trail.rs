//! What operators' commands leave in the audit trail, and what they print when there is nothing to change.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use kairos_identity::proto::{
    DeleteUserRequest, DisableUserRequest, EnableUserRequest, RevokeUserSessionsRequest, SetVerifiedRequest,
    StartPasswordResetRequest, UnlockUserRequest, admin_service_client::AdminServiceClient,
};
use tonic::{Status, transport::Channel};

use crate::support::{
    audit::{AuditLine, RECORDED_LIMIT, audit, audit_with_own_reads},
    people::by_username,
    program::{error_line, stderr, stdout},
    server::TestServer,
    wait::until,
};

/// The commands of an operator about one user, in an order in which most of them change something, some have
/// nothing to change, and some are refused.
const STEPS: [&str; 16] = [
    "verify",
    "unverify",
    "unverify",
    "verify",
    "disable",
    "disable",
    "reset-password",
    "enable",
    "enable",
    "unlock",
    "end-sessions",
    "reset-password",
    "delete",
    "delete",
    "verify",
    "disable",
];

/// Runs a command about users.
fn user(server: &TestServer, arguments: &[&str]) -> Output {
    server.command(&[&["user"], arguments].concat()).output().unwrap()
}

/// Makes the call of `AdminService` that does the same as the command.
async fn call(admin: &mut AdminServiceClient<Channel>, step: &str, token: &str) -> Result<(), Status> {
    let auth_token = token.to_owned();
    let set =
        |is_verified| SetVerifiedRequest { auth_token: token.to_owned(), is_verified: Some(is_verified) };
    match step {
        "verify" => admin.set_verified(set(true)).await.map(drop),
        "unverify" => admin.set_verified(set(false)).await.map(drop),
        "disable" => admin.disable_user(DisableUserRequest { auth_token }).await.map(drop),
        "enable" => admin.enable_user(EnableUserRequest { auth_token }).await.map(drop),
        "unlock" => admin.unlock_user(UnlockUserRequest { auth_token }).await.map(drop),
        "end-sessions" => {
            admin.revoke_user_sessions(RevokeUserSessionsRequest { auth_token }).await.map(drop)
        }
        "reset-password" => {
            admin.start_password_reset(StartPasswordResetRequest { auth_token }).await.map(drop)
        }
        "delete" => admin.delete_user(DeleteUserRequest { auth_token }).await.map(drop),
        other => panic!("no call does the same as {other}"),
    }
}

/// Returns the decisions of these events without those of the registration, sorted: equal refusals of calls
/// are merged, so their order is not that of the calls.
fn decisions(lines: &[AuditLine]) -> Vec<String> {
    let is_of_operator = |line: &&AuditLine| {
        line.kind != "user_created" && !(line.kind == "user_updated" && line.resource.is_none())
    };
    let of_operator = lines.iter().filter(is_of_operator);
    let mut all: Vec<_> = of_operator.flat_map(|line| vec![line.decision(); line.count]).collect();
    all.sort();
    all
}

/// Returns what a command prints to standard error, without the log.
fn said(output: &Output) -> Vec<String> {
    stderr(output).lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect()
}

/// Answers the question of a command on a terminal.
fn on_terminal(command: &Command, answer: &str) -> Output {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        script.current_dir(folder);
    }
    let mut running =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    running.wait_with_output().unwrap()
}

on_both_engines! {
    async fn a_command_leaves_the_events_of_the_call_that_does_the_same(engine: Engine) {
        let server = TestServer::start(engine).await;
        let (ada, bob) = (server.member("ada").await.auth_token, server.member("bob").await.auth_token);
        let mut admin = AdminServiceClient::new(server.channel().await);
        for step in STEPS {
            let output = match step {
                "delete" => user(&server, &["delete", &ada, "--yes"]),
                _ => user(&server, &[step, &ada]),
            };
            let called = call(&mut admin, step, &bob).await;
            assert_eq!(output.status.success(), called.is_ok(), "{step}: {output:?} {called:?}");
        }

        let of_commands = audit_with_own_reads(&server, &["--caller", "command-line", "--user", &ada]);
        let of_commands: Vec<_> =
            of_commands.into_iter().filter(|line| line.resource.as_deref() != Some("audit")).collect();
        let all_calls = async || Some(audit(&server, &["--user", &bob])).filter(|lines| decisions(lines).len() >= STEPS.len());
        let of_calls = until("every call is recorded", RECORDED_LIMIT, all_calls).await;
        assert_eq!(decisions(&of_commands), decisions(&of_calls));
        let unchanged = of_commands.iter().filter(|line| line.kind == "sensitive_read");
        let unchanged: Vec<_> = unchanged.filter_map(|line| line.resource.as_deref()).collect();
        let expected = ["verify", "unverify", "disable", "enable", "unlock", "end-sessions"];
        assert_eq!(unchanged, expected.map(|step| format!("user {step}")));
    }

    async fn a_command_that_changes_nothing_says_so_and_succeeds(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        for (step, state) in [("verify", "the email is verified already"), ("enable", "the user is not disabled")] {
            let output = user(&server, &[step, "ada"]);
            assert!(output.status.success() && stdout(&output).contains("auth_token"), "{output:?}");
            assert_eq!(said(&output), [format!("nothing was changed: {state}")]);
        }
        for (step, state) in [("unverify", "the email is not verified"), ("disable", "the user is disabled already")] {
            let (first, second) = (user(&server, &[step, "ada"]), user(&server, &[step, "ada"]));
            assert!(first.status.success() && second.status.success(), "{second:?}");
            assert_eq!((said(&first), said(&second)), (vec![], vec![format!("nothing was changed: {state}")]));
        }
    }

    async fn a_deletion_that_is_declined_deletes_nothing_and_is_recorded_as_a_read(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await.auth_token;

        let unasked = user(&server, &["delete", "ada"]);
        let declined = on_terminal(&server.command(&["user", "delete", "ada"]), "n\n");

        assert!(error_line(1, &unasked).contains("nothing was deleted"));
        assert!(declined.status.code() == Some(1) && stdout(&declined).contains("nothing was deleted"), "{declined:?}");
        server.client().await.find_user(by_username("ada")).await.unwrap();
        let lines = audit_with_own_reads(&server, &["--caller", "command-line"]);
        let shown: Vec<_> = lines.iter().map(|line| (&*line.kind, line.resource.as_deref(), &*line.user)).collect();
        assert_eq!(shown, [("sensitive_read", Some("user delete"), &*ada); 2]);

        let confirmed = on_terminal(&server.command(&["user", "delete", "ada"]), "y\n");
        assert!(confirmed.status.success(), "{confirmed:?}");
        let deleted = audit(&server, &["--kind", "user_deleted"]);
        assert!(deleted.len() == 1 && deleted[0].user == ada, "{deleted:?}");
    }

    async fn a_refused_command_is_recorded_with_the_user_that_it_names(engine: Engine) {
        let server = TestServer::start(engine).await;
        let unknown = "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11";
        for step in ["show", "verify", "disable", "delete"] {
            assert!(error_line(1, &user(&server, &[step, unknown])).contains(unknown));
        }
        let output = server.command(&["audit", "--user", "unknown@example.com"]).output().unwrap();
        assert!(error_line(1, &output).contains("unknown@example.com"));

        let lines = audit(&server, &["--caller", "command-line"]);
        let shown: Vec<_> = lines.iter().map(|line| (line.decision(), &*line.user, line.resource.as_deref())).collect();
        let refused = |kind: &str| format!("{kind} USER_NOT_FOUND");
        assert_eq!(shown, [
            (refused("sensitive_read_fail"), unknown, Some("user show")),
            (refused("user_update_fail"), unknown, Some("user verify")),
            (refused("user_disable_fail"), unknown, Some("user disable")),
            (refused("user_delete_fail"), unknown, Some("user delete")),
            (refused("sensitive_read_fail"), "-", Some("audit")),
        ]);
    }

    async fn changes_of_secret_keys_that_are_refused_or_change_nothing_are_recorded_as_such(engine: Engine) {
        let server = TestServer::start(engine).await;
        let keys = |arguments: &[&str]| server.command(&[&["keys", "secret"], arguments].concat()).output().unwrap();
        let listed = stdout(&keys(&["list"]));
        let current = listed.split('\t').next().unwrap();
        let (began, unknown) = (Instant::now(), "00000000000000ff");

        assert!(error_line(1, &keys(&["rotate", "--to", unknown, "--wait", "30s"])).contains("has no key"));
        assert!(error_line(1, &keys(&["remove", unknown])).contains("has no key"));
        assert!(error_line(1, &keys(&["remove", current])).contains("encrypts new secrets"));
        for unchanged in [&["reseal"][..], &["rotate", "--to", current, "--wait", "30s"]] {
            let output = keys(unchanged);
            assert!(output.status.success() && stdout(&output).contains("nothing was changed"), "{output:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(25), "nothing waits for a change that is not made");

        let lines = audit(&server, &["--caller", "command-line"]);
        let decided: Vec<_> = lines.iter().map(AuditLine::decision).collect();
        let [unknown, in_use] = ["KEY_UNKNOWN", "KEY_IN_USE"].map(|reason| format!("authz_admin_fail {reason}"));
        assert_eq!(decided, [unknown.clone(), unknown, in_use]);
    }
}
