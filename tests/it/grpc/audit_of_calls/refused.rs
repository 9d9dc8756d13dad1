//! Calls that are refused: by their input, their credential, a limit, or because something does not exist.

use super::{
    ACTING, METHODS, UNKNOWN,
    trail::{Trail, text},
};
use crate::support::{
    people::{NEW_PASSWORD, PASSWORD, address},
    raw::Value,
};

/// Makes calls with malformed fields, and each call with malformed metadata.
pub(super) async fn call_with_malformed_input(trail: &mut Trail, access: &str) {
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
        assert!(trail.call_with(method, &[], "", &[("grpc-timeout", "soon")], &invalid).await.is_err());
    }
    for method in ["AdminService/ListUsers", "AdminService/ListAuditEvents"] {
        trail.refused(method, &[("page_token", text("zzz"))], "", &invalid).await;
    }
    let weak = [("current_password", text(PASSWORD)), ("new_password", text("password"))];
    trail.refused("AccountService/ChangePassword", &weak, access, &invalid).await;
}

/// Makes calls with malformed and unknown secrets.
pub(super) async fn call_with_garbage(trail: &mut Trail) {
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
            .call("SessionService/Logout", &fields, "", &["session_expire_fail INVALID_REFRESH_TOKEN"])
            .await;
    }
    let unknown_link = "A".repeat(43);
    for garbage in ["zzz", unknown_link.as_str(), UNKNOWN] {
        let link = [("token", text(garbage))];
        let update = ["user_update_fail INVALID_TOKEN"];
        trail.refused("IdentityService/VerifyEmail", &link, "", &update).await;
        trail.refused("AccountService/ConfirmEmailChange", &link, "", &update).await;
        trail.refused("AccountService/UndoEmailChange", &link, "", &update).await;
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
pub(super) async fn call_with_wrong_passwords(trail: &mut Trail, access: &str) {
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
    // The wrong current passwords count too, so this was the fourth failure: the last one without a wait
    // (`Trail::start`).
    let maximum = ["authn_login_fail_max TOO_MANY_ATTEMPTS"];
    trail.refused("IdentityService/Login", &login, "", &maximum).await;
    // The current passwords of the user have a limit of their own, which this fourth failure reaches.
    let wrong = [("current_password", text("wrong"))];
    let failed = ["user_delete_fail INVALID_CREDENTIALS"];
    trail.refused("AccountService/DeleteAccount", &wrong, access, &failed).await;
    let both = [maximum[0], "authn_password_change_fail TOO_MANY_ATTEMPTS"];
    let change = [("current_password", text(PASSWORD)), ("new_password", text(NEW_PASSWORD))];
    trail.refused("AccountService/ChangePassword", &change, access, &both).await;
}

/// Makes calls about users, sessions and links that do not exist.
pub(super) async fn call_about_what_does_not_exist(trail: &mut Trail, access: &str) {
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
pub(super) async fn call_beyond_the_limits(trail: &mut Trail, access: &str) {
    for number in 0..3 {
        let name = [("username", text(&format!("eve {number}")))];
        trail.ok("AccountService/UpdateAccount", &name, access, &["user_updated OK"]).await;
    }
    let throttled = ["excess_rate_limit_exceeded TOO_MANY_ATTEMPTS"];
    trail.refused("AccountService/UpdateAccount", &[("username", text("eve 3"))], access, &throttled).await;
    // Mails beyond the limit are merged with the earlier ones, so that strangers cannot block the owner's.
    let email = [("email", text(&address("eve")))];
    for (method, events, events_beyond) in [
        (
            "AccountService/RequestPasswordReset",
            "authn_token_created OK",
            "excess_rate_limit_exceeded LINK_ALREADY_MAILED",
        ),
        (
            "IdentityService/ResendVerificationEmail",
            "authn_token_create_fail NO_USER_TO_MAIL",
            "authn_token_create_fail NO_USER_TO_MAIL",
        ),
    ] {
        for _ in 0..3 {
            trail.ok(method, &email, "", &[events]).await;
        }
        // The requests are processed after their responses, in any order.
        trail.assert_recorded().await;
        trail.ok(method, &email, "", &[events_beyond]).await;
    }
}
