//! The audit events of each method: allowed, refused by its input, its credential, a right or a limit, not
//! found, and failed. Each call has its own client address, by which its events are found.

mod allowed;
mod refused;
mod trail;

use std::collections::BTreeSet;

use kairos_identity::proto;

use self::{
    allowed::call_everything_allowed,
    refused::{
        call_about_what_does_not_exist, call_beyond_the_limits, call_with_garbage, call_with_malformed_input,
        call_with_wrong_passwords,
    },
    trail::{Trail, path, text},
};
use crate::support::{
    api::methods,
    audit::{RECORDED_LIMIT, audit},
    callers::{CallersFile, token},
    people::{NEW_PASSWORD, PASSWORD, address},
    raw::{Value, call},
    wait::until,
};

/// A well-formed UUID that is neither the `auth_token` of a user nor the id of a session.
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
    ("AccountService/UndoEmailChange", "user_update_fail", Yes),
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

/// Returns well-formed fields for the method. Returns `None` for a method that uses no table of users,
/// sessions or links.
fn valid_fields(
    method: &str,
    user: &proto::User,
    tokens: &proto::SessionTokens,
) -> Option<Vec<(&'static str, Value)>> {
    let key = ("auth_token", text(&user.auth_token));
    let email = ("email", text(&address("eve")));
    let password = ("current_password", text(PASSWORD));
    let new_password = ("new_password", text(NEW_PASSWORD));
    let link = ("token", text(&"A".repeat(43)));
    let fields = match method {
        "SessionService/GetJwks" | "AdminService/ListAuditEvents" => return None,
        "IdentityService/Register" => {
            vec![("username", text("eve2")), ("email", text(&address("eve2"))), ("password", text(PASSWORD))]
        }
        "IdentityService/VerifyEmail"
        | "AccountService/ConfirmEmailChange"
        | "AccountService/UndoEmailChange" => vec![link],
        "AccountService/ResetPassword" => vec![link, new_password],
        "IdentityService/Login" => vec![email, ("password", text(PASSWORD))],
        "IdentityService/ResendVerificationEmail"
        | "AccountService/RequestPasswordReset"
        | "IdentityService/FindUser" => vec![email],
        "IdentityService/ResolveTokens" => vec![("auth_tokens", text(&user.auth_token))],
        "SessionService/RefreshSession" | "SessionService/Logout" => {
            vec![("refresh_token", text(&tokens.refresh_token))]
        }
        "SessionService/IntrospectToken" => vec![("access_token", text(&tokens.access_token))],
        "SessionService/RevokeSession" => vec![("session_id", text(&tokens.session_id))],
        "AccountService/UpdateAccount" => vec![("username", text("eve2"))],
        "AccountService/ChangePassword" => vec![password, new_password],
        "AccountService/RequestEmailChange" => vec![password, ("new_email", text(&address("eve2")))],
        "AccountService/DeleteAccount" => vec![password],
        "AdminService/SetVerified" => vec![key, ("is_verified", Value::Flag(true))],
        "IdentityService/ResolveToken" => vec![key],
        // These have no required field.
        "SessionService/ListSessions"
        | "SessionService/RevokeAllSessions"
        | "AccountService/GetAccount"
        | "AdminService/ListUsers" => Vec::new(),
        method if method.starts_with("AdminService/") => vec![key],
        _ => panic!("{method} has no fields here"),
    };
    Some(fields)
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
        // Without these tables every query fails, so each call ends with INTERNAL.
        for table in ["core_user", "core_session", "core_mail_token"] {
            trail.database.execute(&format!("ALTER TABLE {table} RENAME TO lost_{table}"));
        }

        for (method, kind, _) in METHODS {
            let Some(fields) = valid_fields(method, &eve, &tokens) else { continue };
            let event = format!("{kind} INTERNAL");
            let is_look_up = ["IdentityService/ResolveToken", "IdentityService/ResolveTokens"].contains(method);
            let events = if is_look_up { &[][..] } else { &[event.as_str()] };
            let bearer = if ACTING.contains(method) { tokens.access_token.as_str() } else { "" };
            // A requested link is created after the response, so these calls succeed.
            let _answer = trail.call(method, &fields, bearer, events).await;
        }
        trail.assert_recorded().await;
    }

    async fn a_caller_without_the_right_leaves_an_event_for_each_method(engine: Engine) {
        let file = CallersFile::new(&[("agent", &token(1), "Health/*", "*")]);
        let server = file.serve(engine).await;
        for (method, ..) in METHODS {
            call(&server, &path(method), &[], Some(token(1).expose())).await.unwrap_err();
        }
        let expected: BTreeSet<String> = METHODS.iter().map(|(method, ..)| path(method)).collect();
        until("a row for each method", RECORDED_LIMIT, async || {
            let lines = audit(&server, &["--kind", "authz_fail", "--caller", "agent"]);
            let refused = lines.into_iter().filter(|line| line.outcome == "CALLER_NOT_ALLOWED");
            let found = refused.filter_map(|line| line.resource);
            (found.collect::<BTreeSet<_>>() == expected).then_some(())
        }).await;
    }
}
