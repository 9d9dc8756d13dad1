//! The audit events of each method: allowed, refused by its input, its credential, a right or a limit, not
//! found, and failed. Each call has its own client address, by which its events are found.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kairos_identity::proto;
use prost::Message as _;
use tonic::Status;

use super::audit::{RECORDED_LIMIT, audit};
use crate::support::{
    api::methods,
    callers::{CallersFile, token},
    engine::{Engine, TestDatabase},
    people::{PASSWORD, address},
    raw::{Value, call_with},
    server::TestServer,
    wait::until,
};

const NEW_PASSWORD: &str = "quartz-Lantern-57-meadow";
const UNKNOWN: &str = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";

/// A method, the kind of its refusals, and whether a success is recorded.
type Row = (&'static str, &'static str, Recorded);

enum Recorded {
    /// The operation or the layer records it.
    Yes,
    /// It is not recorded on purpose.
    No(&'static str),
}
use Recorded::{No, Yes};

const METHODS: &[Row] = &[
    ("IdentityService/Register", "user_create_fail", Yes),
    ("IdentityService/VerifyEmail", "user_update_fail", Yes),
    ("IdentityService/ResendVerificationEmail", "authn_token_create_fail", Yes),
    ("IdentityService/Login", "authn_login_fail", Yes),
    (
        "IdentityService/ResolveToken",
        "sensitive_read_fail",
        No("one for each message: tens of thousands a second"),
    ),
    (
        "IdentityService/ResolveTokens",
        "sensitive_read_fail",
        No("one for each message: tens of thousands a second"),
    ),
    ("IdentityService/FindUser", "sensitive_read_fail", Yes),
    ("SessionService/RefreshSession", "session_renew_fail", Yes),
    ("SessionService/Logout", "session_expire_fail", Yes),
    ("SessionService/ListSessions", "sensitive_read_fail", No("users read their own sessions")),
    ("SessionService/RevokeSession", "session_expire_fail", Yes),
    ("SessionService/RevokeAllSessions", "session_expire_fail", Yes),
    (
        "SessionService/IntrospectToken",
        "sensitive_read_fail",
        No("one for each call of a service with a token"),
    ),
    ("SessionService/GetJwks", "sensitive_read_fail", No("the keys are public")),
    ("AccountService/GetAccount", "sensitive_read_fail", No("users read their own account")),
    ("AccountService/UpdateAccount", "user_update_fail", Yes),
    ("AccountService/ChangePassword", "authn_password_change_fail", Yes),
    ("AccountService/RequestEmailChange", "user_update_fail", Yes),
    ("AccountService/ConfirmEmailChange", "user_update_fail", Yes),
    ("AccountService/DeleteAccount", "user_delete_fail", Yes),
    ("AccountService/RequestPasswordReset", "authn_token_create_fail", Yes),
    ("AccountService/ResetPassword", "authn_password_change_fail", Yes),
    ("AdminService/GetUser", "sensitive_read_fail", Yes),
    ("AdminService/ListUsers", "sensitive_read_fail", Yes),
    ("AdminService/SetVerified", "user_update_fail", Yes),
    ("AdminService/DisableUser", "user_disable_fail", Yes),
    ("AdminService/EnableUser", "user_enable_fail", Yes),
    ("AdminService/UnlockUser", "authn_login_unlock_fail", Yes),
    ("AdminService/DeleteUser", "user_delete_fail", Yes),
    ("AdminService/RevokeUserSessions", "session_expire_fail", Yes),
    ("AdminService/StartPasswordReset", "authn_token_create_fail", Yes),
    ("AdminService/ListAuditEvents", "sensitive_read_fail", Yes),
];

/// The methods that act for a user with an access token.
const ACTING: [&str; 8] = [
    "SessionService/ListSessions",
    "SessionService/RevokeSession",
    "SessionService/RevokeAllSessions",
    "AccountService/GetAccount",
    "AccountService/UpdateAccount",
    "AccountService/ChangePassword",
    "AccountService/RequestEmailChange",
    "AccountService/DeleteAccount",
];

fn path(method: &str) -> String {
    format!("/kairos.identity.v1.{method}")
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A server, the calls that were made to it, and the events that each of them must leave.
struct Trail {
    database: TestDatabase,
    server: TestServer,
    /// The call, its events as `KIND OUTCOME` and its client address.
    calls: Vec<(String, Vec<String>, String)>,
}

impl Trail {
    async fn start(engine: Engine) -> Self {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned())
            .with_env("KAIROS_IDENTITY_AUDIT_REFUSALS_MAX", "1000")
            .with_env("KAIROS_IDENTITY_AUDIT_ACCOUNT_MAX", "1000")
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "4")
            .start()
            .await;
        Self { database, server, calls: Vec::new() }
    }

    /// Makes a call, which must leave exactly these events.
    async fn call(
        &mut self,
        method: &str,
        fields: &[(&str, Value)],
        metadata: &[(&'static str, &str)],
        events: &[&str],
    ) -> Result<Vec<u8>, Status> {
        let number = self.calls.len();
        let client = format!("198.18.{}.{}", number / 250, number % 250);
        let metadata = [metadata, &[("kairos-client-ip", client.as_str())]].concat();
        let answer = call_with(&self.server, &path(method), fields, &metadata).await;
        let what = format!("{method} {fields:?} {metadata:?}: {answer:?}");
        self.calls.push((what, events.iter().map(ToString::to_string).collect(), client));
        answer
    }

    /// Makes a call that is allowed.
    async fn ok(&mut self, method: &str, fields: &[(&str, Value)], bearer: &str, events: &[&str]) -> Vec<u8> {
        let credentials = format!("Bearer {bearer}");
        let metadata = [("authorization", credentials.as_str())];
        let metadata = if bearer.is_empty() { &[][..] } else { &metadata };
        self.call(method, fields, metadata, events)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    /// Makes a call that is refused.
    async fn refused(&mut self, method: &str, fields: &[(&str, Value)], bearer: &str, events: &[&str]) {
        let credentials = format!("Bearer {bearer}");
        let metadata = [("authorization", credentials.as_str())];
        let metadata = if bearer.is_empty() { &[][..] } else { &metadata };
        let answer = self.call(method, fields, metadata, events).await;
        assert!(answer.is_err(), "{method} {fields:?}");
    }

    /// Waits until the audit trail contains exactly the events of every call.
    async fn assert_recorded(&self) {
        let began = Instant::now();
        loop {
            let differences = self.differences();
            if differences.is_empty() {
                return;
            }
            assert!(began.elapsed() < RECORDED_LIMIT, "{}", differences.join("\n"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Returns the calls whose events differ from the expected ones.
    fn differences(&self) -> Vec<String> {
        let mut recorded: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in audit(&self.server, &[]) {
            recorded.entry(line[5].clone()).or_default().push(format!("{} {}", line[1], line[2]));
        }
        let mut differences = Vec::new();
        for (what, expected, client) in &self.calls {
            let (mut found, mut expected) = (recorded.remove(client).unwrap_or_default(), expected.clone());
            found.sort();
            expected.sort();
            if found != expected {
                differences.push(format!("{what}\n  expected {expected:?}, found {found:?}"));
            }
        }
        differences
    }

    /// Registers and verifies a user, logs the user in, and returns the user and the tokens.
    async fn member(&mut self, name: &str) -> (proto::User, proto::SessionTokens) {
        let returned = ("return_mail_token", Value::Flag(true));
        let fields = [
            ("username", text(name)),
            ("email", text(&address(name))),
            ("password", text(PASSWORD)),
            returned,
        ];
        let registered = self.ok("IdentityService/Register", &fields, "", &["user_created OK"]).await;
        let registered = proto::RegisterResponse::decode(&*registered).unwrap();
        let link = [("token", text(&registered.mail_token))];
        self.ok("IdentityService/VerifyEmail", &link, "", &["user_updated OK"]).await;
        (registered.user.unwrap(), self.log_in(name, PASSWORD).await)
    }

    async fn log_in(&mut self, name: &str, password: &str) -> proto::SessionTokens {
        let fields = [("email", text(&address(name))), ("password", text(password))];
        let answer = self.ok("IdentityService/Login", &fields, "", &["authn_login_success OK"]).await;
        proto::LoginResponse::decode(&*answer).unwrap().tokens.unwrap()
    }
}

/// Makes an allowed call of each method.
async fn call_everything_allowed(trail: &mut Trail) {
    let (ada, tokens) = trail.member("ada").await;
    read_and_refresh(trail, &ada, &tokens).await;
    change_account(trail).await;
    administrate(trail, &ada).await;
    let (_, tokens) = trail.member("bob").await;
    let password = [("current_password", text(PASSWORD))];
    trail.ok("AccountService/DeleteAccount", &password, &tokens.access_token, &["user_deleted OK"]).await;
}

/// Makes the allowed calls that look up users, and those about sessions.
async fn read_and_refresh(trail: &mut Trail, ada: &proto::User, tokens: &proto::SessionTokens) {
    let access = tokens.access_token.as_str();
    let key = [("auth_token", text(&ada.auth_token))];
    let email = [("email", text(&address("ada")))];
    trail
        .ok(
            "IdentityService/ResendVerificationEmail",
            &email,
            "",
            &["authn_token_create_fail NO_USER_TO_MAIL"],
        )
        .await;
    trail.ok("IdentityService/ResolveToken", &key, "", &[]).await;
    trail.ok("IdentityService/ResolveTokens", &[("auth_tokens", text(&ada.auth_token))], "", &[]).await;
    trail.ok("IdentityService/FindUser", &email, "", &["sensitive_read OK"]).await;
    let refresh = [("refresh_token", text(&tokens.refresh_token))];
    for _ in 0..2 {
        trail.ok("SessionService/RefreshSession", &refresh, "", &["session_renewed OK"]).await;
    }
    trail.ok("SessionService/ListSessions", &[], access, &[]).await;
    trail.ok("SessionService/IntrospectToken", &[("access_token", text(access))], "", &[]).await;
    trail.ok("SessionService/GetJwks", &[], "", &[]).await;
    trail.ok("AccountService/GetAccount", &[], access, &[]).await;
    let other = trail.log_in("ada", PASSWORD).await;
    let session = [("session_id", text(&other.session_id))];
    trail.ok("SessionService/RevokeSession", &session, access, &["session_expired OK"]).await;
    trail.ok("SessionService/RevokeAllSessions", &[], access, &["session_expired OK"]).await;
    let other = trail.log_in("ada", PASSWORD).await;
    for (_, events) in [(1, ["session_expired OK"]), (2, ["session_expire_fail INVALID_REFRESH_TOKEN"])] {
        trail
            .ok("SessionService/Logout", &[("refresh_token", text(&other.refresh_token))], "", &events)
            .await;
    }
}

/// Makes the allowed calls with which `ada` changes the account. Its email is that of `ada2` afterwards.
async fn change_account(trail: &mut Trail) {
    let returned = ("return_mail_token", Value::Flag(true));
    let tokens = trail.log_in("ada", PASSWORD).await;
    let access = tokens.access_token.as_str();
    trail
        .ok("AccountService/UpdateAccount", &[("username", text("ada l"))], access, &["user_updated OK"])
        .await;
    trail.ok("AccountService/UpdateAccount", &[("username", text("ada l"))], access, &[]).await;
    let passwords = [("current_password", text(PASSWORD)), ("new_password", text(NEW_PASSWORD))];
    trail.ok("AccountService/ChangePassword", &passwords, access, &["authn_password_change OK"]).await;
    let change =
        [("current_password", text(NEW_PASSWORD)), ("new_email", text(&address("ada2"))), returned.clone()];
    let link =
        trail.ok("AccountService/RequestEmailChange", &change, access, &["authn_token_created OK"]).await;
    let link = proto::RequestEmailChangeResponse::decode(&*link).unwrap().mail_token;
    trail.ok("AccountService/ConfirmEmailChange", &[("token", text(&link))], "", &["user_updated OK"]).await;
    let email = ("email", text(&address("ada2")));
    let link = trail
        .ok("AccountService/RequestPasswordReset", &[email, returned], "", &["authn_token_created OK"])
        .await;
    let link = proto::RequestPasswordResetResponse::decode(&*link).unwrap().mail_token;
    let reset = [("token", text(&link)), ("new_password", text(PASSWORD))];
    trail.ok("AccountService/ResetPassword", &reset, "", &["authn_password_change OK"]).await;
}

/// Makes the allowed calls of an operator.
async fn administrate(trail: &mut Trail, ada: &proto::User) {
    let key = [("auth_token", text(&ada.auth_token))];
    let email = [("email", text(&address("ada2")))];
    trail.ok("AdminService/GetUser", &email, "", &["sensitive_read OK"]).await;
    trail.ok("AdminService/ListUsers", &[], "", &["sensitive_read OK"]).await;
    trail.ok("AdminService/ListAuditEvents", &[], "", &["sensitive_read OK"]).await;
    // A repeated call changes nothing, and has read the state of the user.
    let verified = [key[0].clone(), ("is_verified", Value::Flag(false))];
    for events in [["user_updated OK"], ["sensitive_read OK"]] {
        trail.ok("AdminService/SetVerified", &verified, "", &events).await;
    }
    for (method, kind) in [("DisableUser", "user_disabled OK"), ("EnableUser", "user_enabled OK")] {
        for events in [[kind], ["sensitive_read OK"]] {
            trail.ok(&format!("AdminService/{method}"), &key, "", &events).await;
        }
    }
    for method in ["UnlockUser", "RevokeUserSessions"] {
        trail.ok(&format!("AdminService/{method}"), &key, "", &["sensitive_read OK"]).await;
    }
    trail.ok("AdminService/StartPasswordReset", &key, "", &["authn_token_created OK"]).await;
    trail.ok("AdminService/DeleteUser", &key, "", &["user_deleted OK"]).await;
}

/// Makes calls with malformed fields, and each call with malformed metadata.
async fn call_with_malformed_input(trail: &mut Trail, access: &str) {
    let invalid = ["input_validation_fail INVALID_FIELDS"];
    let valid_when_empty = [
        "SessionService/ListSessions",
        "SessionService/RevokeAllSessions",
        "SessionService/IntrospectToken",
        "SessionService/GetJwks",
        "AccountService/GetAccount",
        "AdminService/ListUsers",
        "AdminService/ListAuditEvents",
    ];
    for (method, ..) in METHODS {
        if !valid_when_empty.contains(method) {
            let bearer = if ACTING.contains(method) { access } else { "" };
            trail.refused(method, &[], bearer, &invalid).await;
        }
        assert!(trail.call(method, &[], &[("grpc-timeout", "soon")], &invalid).await.is_err());
    }
    for method in ["AdminService/ListUsers", "AdminService/ListAuditEvents"] {
        trail.refused(method, &[("page_token", text("zzz"))], "", &invalid).await;
    }
    let weak = [("current_password", text(PASSWORD)), ("new_password", text("password"))];
    trail.refused("AccountService/ChangePassword", &weak, access, &invalid).await;
}

/// Makes calls with malformed and unknown secrets.
async fn call_with_garbage(trail: &mut Trail) {
    let unknown_refresh = format!("krt_{}", "A".repeat(64));
    for garbage in ["zzz", "krt_zzz", unknown_refresh.as_str(), "\u{fffd}"] {
        let fields = [("refresh_token", text(garbage))];
        trail
            .refused(
                "SessionService/RefreshSession",
                &fields,
                "",
                &["session_renew_fail INVALID_REFRESH_TOKEN"],
            )
            .await;
        // Answers OK to a well-formed token, but records that it revoked nothing.
        let _answer = trail
            .call("SessionService/Logout", &fields, &[], &["session_expire_fail INVALID_REFRESH_TOKEN"])
            .await;
    }
    let unknown_link = "A".repeat(43);
    for garbage in ["zzz", unknown_link.as_str(), UNKNOWN] {
        let link = [("token", text(garbage))];
        let update = ["user_update_fail INVALID_TOKEN"];
        trail.refused("IdentityService/VerifyEmail", &link, "", &update).await;
        trail.refused("AccountService/ConfirmEmailChange", &link, "", &update).await;
        let [token] = link;
        let reset = [token, ("new_password", text(NEW_PASSWORD))];
        trail
            .refused(
                "AccountService/ResetPassword",
                &reset,
                "",
                &["authn_password_change_fail INVALID_TOKEN"],
            )
            .await;
        let inactive = ["authz_fail INVALID_ACCESS_TOKEN"];
        trail.ok("SessionService/IntrospectToken", &[("access_token", text(garbage))], "", &inactive).await;
        for method in ACTING {
            trail.refused(method, &[], garbage, &inactive).await;
        }
    }
}

/// Makes calls with wrong passwords, until the account has to wait.
async fn call_with_wrong_passwords(trail: &mut Trail, access: &str) {
    let wrong = ("current_password", text("wrong"));
    let change = [wrong.clone(), ("new_password", text(NEW_PASSWORD))];
    trail
        .refused(
            "AccountService/ChangePassword",
            &change,
            access,
            &["authn_password_change_fail INVALID_CREDENTIALS"],
        )
        .await;
    let change = [wrong.clone(), ("new_email", text(&address("eve2")))];
    trail
        .refused(
            "AccountService/RequestEmailChange",
            &change,
            access,
            &["user_update_fail INVALID_CREDENTIALS"],
        )
        .await;
    trail
        .refused("AccountService/DeleteAccount", &[wrong], access, &["user_delete_fail INVALID_CREDENTIALS"])
        .await;
    let login = [("email", text(&address("eve"))), ("password", text("wrong"))];
    trail.refused("IdentityService/Login", &login, "", &["authn_login_fail INVALID_CREDENTIALS"]).await;
    // The fourth failure was the last one without a wait.
    let maximum = ["authn_login_fail_max TOO_MANY_ATTEMPTS"];
    trail.refused("IdentityService/Login", &login, "", &maximum).await;
    let both = [maximum[0], "authn_password_change_fail TOO_MANY_ATTEMPTS"];
    let change = [("current_password", text(PASSWORD)), ("new_password", text(NEW_PASSWORD))];
    trail.refused("AccountService/ChangePassword", &change, access, &both).await;
}

/// Makes calls about users, sessions and links that do not exist.
async fn call_about_what_does_not_exist(trail: &mut Trail, access: &str) {
    let key = ("auth_token", text(UNKNOWN));
    for (method, kind, _) in METHODS.iter().filter(|(method, ..)| method.starts_with("AdminService/")) {
        if !method.contains("/List") {
            let fields = [key.clone(), ("is_verified", Value::Flag(true))];
            let fields = if method.ends_with("SetVerified") { &fields[..] } else { &fields[..1] };
            trail.refused(method, fields, "", &[format!("{kind} USER_NOT_FOUND").as_str()]).await;
        }
    }
    let unknown = ["sensitive_read_fail USER_NOT_FOUND"];
    trail.refused("IdentityService/ResolveToken", &[key], "", &unknown).await;
    trail.refused("IdentityService/FindUser", &[("email", text(&address("unknown")))], "", &unknown).await;
    let session = [("session_id", text(UNKNOWN))];
    trail
        .refused("SessionService/RevokeSession", &session, access, &["session_expire_fail SESSION_NOT_FOUND"])
        .await;
}

/// Makes each limited call until it is refused.
async fn call_beyond_the_limits(trail: &mut Trail, access: &str) {
    for number in 0..3 {
        let name = [("username", text(&format!("eve {number}")))];
        trail.ok("AccountService/UpdateAccount", &name, access, &["user_updated OK"]).await;
    }
    let throttled = ["excess_rate_limit_exceeded TOO_MANY_ATTEMPTS"];
    trail.refused("AccountService/UpdateAccount", &[("username", text("eve 3"))], access, &throttled).await;
    let email = [("email", text(&address("eve")))];
    for (method, events) in [
        ("AccountService/RequestPasswordReset", "authn_token_created OK"),
        ("IdentityService/ResendVerificationEmail", "authn_token_create_fail NO_USER_TO_MAIL"),
    ] {
        for _ in 0..3 {
            trail.ok(method, &email, "", &[events]).await;
        }
        trail.refused(method, &email, "", &throttled).await;
    }
}

on_both_engines! {
    async fn each_call_leaves_the_events_of_its_outcome(engine: Engine) {
        let all: BTreeSet<String> = methods().into_iter().collect();
        assert_eq!(METHODS.iter().map(|(method, ..)| path(method)).collect::<BTreeSet<_>>(), all, "each method has a row");
        let mut trail = Trail::start(engine).await;

        call_everything_allowed(&mut trail).await;
        for (method, _, recorded) in METHODS {
            let calls: Vec<_> = trail.calls.iter().filter(|(what, ..)| what.starts_with(&format!("{method} "))).collect();
            let is_recorded = calls.iter().any(|(_, events, _)| !events.is_empty());
            let reason = if let No(reason) = recorded { reason } else { "" };
            assert!(!calls.is_empty() && is_recorded == reason.is_empty(), "{method}: {reason}");
        }
        let (_, eve) = trail.member("eve").await;
        call_with_malformed_input(&mut trail, &eve.access_token).await;
        call_about_what_does_not_exist(&mut trail, &eve.access_token).await;
        call_beyond_the_limits(&mut trail, &eve.access_token).await;
        call_with_garbage(&mut trail).await;
        call_with_wrong_passwords(&mut trail, &eve.access_token).await;
        trail.assert_recorded().await;
    }

    async fn a_failed_call_leaves_an_event_except_for_look_ups(engine: Engine) {
        let mut trail = Trail::start(engine).await;
        let (eve, tokens) = trail.member("eve").await;
        for table in ["core_user", "core_session", "core_mail_token"] {
            trail.database.execute(&format!("ALTER TABLE {table} RENAME TO lost_{table}"));
        }

        let (key, email) = (("auth_token", text(&eve.auth_token)), ("email", text(&address("eve"))));
        let (password, new_password) = (("current_password", text(PASSWORD)), ("new_password", text(NEW_PASSWORD)));
        let link = ("token", text(&"A".repeat(43)));
        for (method, kind, _) in METHODS {
            let fields = match *method {
                // These use no user.
                "SessionService/GetJwks" | "AdminService/ListAuditEvents" => continue,
                "IdentityService/Register" => vec![("username", text("eve2")), ("email", text(&address("eve2"))), ("password", text(PASSWORD))],
                "IdentityService/VerifyEmail" | "AccountService/ConfirmEmailChange" => vec![link.clone()],
                "AccountService/ResetPassword" => vec![link.clone(), new_password.clone()],
                "IdentityService/Login" => vec![email.clone(), ("password", text(PASSWORD))],
                "IdentityService/ResendVerificationEmail" | "AccountService/RequestPasswordReset" | "IdentityService/FindUser" => vec![email.clone()],
                "IdentityService/ResolveTokens" => vec![("auth_tokens", text(&eve.auth_token))],
                "SessionService/RefreshSession" | "SessionService/Logout" => vec![("refresh_token", text(&tokens.refresh_token))],
                "SessionService/IntrospectToken" => vec![("access_token", text(&tokens.access_token))],
                "SessionService/RevokeSession" => vec![("session_id", text(&tokens.session_id))],
                "AccountService/UpdateAccount" => vec![("username", text("eve2"))],
                "AccountService/ChangePassword" => vec![password.clone(), new_password.clone()],
                "AccountService/RequestEmailChange" => vec![password.clone(), ("new_email", text(&address("eve2")))],
                "AccountService/DeleteAccount" => vec![password.clone()],
                "AdminService/SetVerified" => vec![key.clone(), ("is_verified", Value::Flag(true))],
                "IdentityService/ResolveToken" => vec![key.clone()],
                method if method.starts_with("AdminService/") && !method.ends_with("ListUsers") => vec![key.clone()],
                _ => Vec::new(),
            };
            let events = match *method {
                "IdentityService/ResolveToken" | "IdentityService/ResolveTokens" => Vec::new(),
                _ => vec![format!("{kind} INTERNAL")],
            };
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            let bearer = if ACTING.contains(method) { tokens.access_token.as_str() } else { "" };
            let credentials = format!("Bearer {bearer}");
            let metadata = [("authorization", credentials.as_str())];
            let metadata = if bearer.is_empty() { &[][..] } else { &metadata };
            // A requested link is created after the response.
            let _answer = trail.call(method, &fields, metadata, &events).await;
        }
        trail.assert_recorded().await;
    }

    async fn a_caller_without_the_right_leaves_an_event_for_each_method(engine: Engine) {
        let file = CallersFile::new(&[("agent", &token(1), "Health/*", "*")]);
        let server = file.serve(engine).await;
        let credentials = format!("Bearer {}", token(1).expose());
        for (method, ..) in METHODS {
            call_with(&server, &path(method), &[], &[("authorization", credentials.as_str())]).await.unwrap_err();
        }
        let expected: BTreeSet<String> = METHODS.iter().map(|(method, ..)| format!("resource={}", path(method))).collect();
        until("a row for each method", RECORDED_LIMIT, async || {
            let lines = audit(&server, &["--kind", "authz_fail", "--caller", "agent"]);
            let found = lines.iter().filter(|line| line[2] == "CALLER_NOT_ALLOWED").map(|line| line[6].clone());
            (found.collect::<BTreeSet<_>>() == expected).then_some(())
        }).await;
    }
}
