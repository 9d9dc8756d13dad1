//! An allowed call of each method.

use kairos_identity::proto;
use prost::Message as _;

use super::trail::{Trail, text};
use crate::support::{
    mail::link_to,
    people::{NEW_PASSWORD, PASSWORD, address},
    raw::Value,
};

/// Makes an allowed call of each method.
pub(super) async fn call_everything_allowed(trail: &mut Trail) {
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
    // The request is processed after its response. It must be over before a later call marks the user as not
    // verified: it would mail a link to such a user.
    trail.assert_recorded().await;
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
    // The second logout finds no session to revoke.
    for events in [["session_expired OK"], ["session_expire_fail INVALID_REFRESH_TOKEN"]] {
        trail
            .ok("SessionService/Logout", &[("refresh_token", text(&other.refresh_token))], "", &events)
            .await;
    }
}

/// Makes the allowed calls that change the account of `ada`. The last one restores the email.
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
    let undo = [("token", text(&link_to(&trail.server, &address("ada"), "undo-email-change").await))];
    trail.ok("AccountService/UndoEmailChange", &undo, "", &["user_updated OK"]).await;
}

/// Makes the allowed calls of an operator.
async fn administrate(trail: &mut Trail, ada: &proto::User) {
    let key = [("auth_token", text(&ada.auth_token))];
    let email = [("email", text(&address("ada")))];
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
