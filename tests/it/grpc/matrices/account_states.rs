//! The answer of each method in each state of an account.

use kairos_identity::proto;
use prost::Message as _;

use super::{
    BAD_ACCESS, BAD_LINK, BAD_REFRESH, Field, INACTIVE, OK, TAKEN, UNKNOWN_USER, account::Account,
    call_method, outcome, start_without_limits, text,
};
use crate::support::{engine::TestDatabase, people::address, raw::Value, server::TestServer};

/// The answers of each method to an unverified, verified, disabled and deleted account. Its credentials were
/// issued before the account entered that state, except the verification link of an unverified account.
pub(super) const STATES: &[(&str, [&str; 4])] = &[
    ("IdentityService/Register", [TAKEN, TAKEN, TAKEN, OK]),
    ("IdentityService/VerifyEmail", [OK, "EMAIL_ALREADY_VERIFIED", BAD_LINK, BAD_LINK]),
    ("IdentityService/ResendVerificationEmail", [OK, OK, OK, OK]),
    ("IdentityService/Login", ["EMAIL_NOT_VERIFIED", OK, "ACCOUNT_DISABLED", "INVALID_CREDENTIALS"]),
    ("IdentityService/ResolveToken", [OK, OK, OK, UNKNOWN_USER]),
    ("IdentityService/ResolveTokens", [OK, OK, OK, OK]),
    ("IdentityService/FindUser", [OK, OK, OK, UNKNOWN_USER]),
    ("SessionService/RefreshSession", [BAD_REFRESH, OK, BAD_REFRESH, BAD_REFRESH]),
    ("SessionService/Logout", [OK, OK, OK, OK]),
    ("SessionService/ListSessions", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("SessionService/RevokeSession", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("SessionService/RevokeAllSessions", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("SessionService/IntrospectToken", [INACTIVE, OK, INACTIVE, INACTIVE]),
    ("SessionService/GetJwks", [OK, OK, OK, OK]),
    ("AccountService/GetAccount", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("AccountService/UpdateAccount", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("AccountService/ChangePassword", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("AccountService/RequestEmailChange", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("AccountService/ConfirmEmailChange", [BAD_LINK, OK, BAD_LINK, BAD_LINK]),
    ("AccountService/UndoEmailChange", [OK, OK, BAD_LINK, BAD_LINK]),
    ("AccountService/DeleteAccount", [BAD_ACCESS, OK, BAD_ACCESS, BAD_ACCESS]),
    ("AccountService/RequestPasswordReset", [OK, OK, OK, OK]),
    ("AccountService/ResetPassword", [BAD_LINK, OK, BAD_LINK, BAD_LINK]),
    ("AdminService/GetUser", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/ListUsers", [OK, OK, OK, OK]),
    ("AdminService/SetVerified", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/DisableUser", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/EnableUser", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/UnlockUser", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/DeleteUser", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/RevokeUserSessions", [OK, OK, OK, UNKNOWN_USER]),
    ("AdminService/StartPasswordReset", [OK, OK, "ACCOUNT_DISABLED", UNKNOWN_USER]),
    ("AdminService/ListAuditEvents", [OK, OK, OK, OK]),
];

/// The names of the states, in the order of the answers.
const STATE_NAMES: [&str; 4] = ["unverified", "verified", "disabled", "deleted"];

const UNVERIFIED: usize = 0;
const DISABLED: usize = 2;
const DELETED: usize = 3;

on_both_engines! {
    async fn each_method_answers_as_expected_in_each_account_state(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = start_without_limits(&database).await;
        for (row, (method, answers)) in STATES.iter().enumerate() {
            for (state, expected) in answers.iter().enumerate() {
                let mut account = Account::new(&server, &format!("p{row}-{state}"), *method == "AccountService/UndoEmailChange").await;
                bring_into(&server, &mut account, state).await;
                // `Field("")` is no slot, so the request is complete.
                let (mut fields, bearer) = account.valid_request(method, Field(""));
                if *method == "IdentityService/FindUser" {
                    fields.push(("email", text(&address(&account.name))));
                }
                let answer = outcome(method, call_method(&server, method, &fields, bearer.as_deref()).await);
                assert_eq!(answer, *expected, "{method}, {}", STATE_NAMES[state]);
            }
        }
    }
}

/// Brings an account into one of the states of [`STATES`].
async fn bring_into(server: &TestServer, account: &mut Account, state: usize) {
    let key = ("auth_token", text(&account.user.auth_token));
    match state {
        UNVERIFIED => {
            let set = [key, ("is_verified", Value::Flag(false))];
            call_method(server, "AdminService/SetVerified", &set, None).await.unwrap();
            let resend = [("email", text(&address(&account.name))), ("return_mail_token", Value::Flag(true))];
            let response =
                call_method(server, "IdentityService/ResendVerificationEmail", &resend, None).await.unwrap();
            // The first credential is the verification link.
            account.credentials[0] =
                proto::ResendVerificationEmailResponse::decode(&*response).unwrap().mail_token;
        }
        DISABLED => drop(call_method(server, "AdminService/DisableUser", &[key], None).await.unwrap()),
        DELETED => drop(call_method(server, "AdminService/DeleteUser", &[key], None).await.unwrap()),
        // A new account is verified.
        _ => {}
    }
}
