//! Two tables over every method in the API descriptors: the credential that each slot accepts ([`ROWS`]), and
//! the answer in each state of an account ([`STATES`]). A method that is missing from a table fails a test.

mod account;
mod account_states;

use std::collections::BTreeSet;

use kairos_identity::{callers::ServiceToken, proto};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::{account::Account, account_states::STATES};
use crate::support::{
    api::methods,
    callers::CallersFile,
    engine::TestDatabase,
    people::address,
    raw::{Value, call},
    server::TestServer,
};

/// A secret or identifier that a client could send where another one is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    VerifyLink,
    ResetLink,
    ChangeLink,
    UndoLink,
    Access,
    Refresh,
    AuthToken,
    Service,
    Password,
}

const CREDENTIALS: [Credential; 9] = [
    Credential::VerifyLink,
    Credential::ResetLink,
    Credential::ChangeLink,
    Credential::UndoLink,
    Credential::Access,
    Credential::Refresh,
    Credential::AuthToken,
    Credential::Service,
    Credential::Password,
];

/// The place in a request where a method takes a credential or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// The metadata `authorization: Bearer`.
    Bearer,
    /// A field of the request.
    Field(&'static str),
}
use Slot::{Bearer, Field};

/// A method, one of its slots, and the one credential that the slot accepts; `None` if it accepts none of
/// them.
struct Row(&'static str, Slot, Option<Credential>);

/// Every slot of every method. The other fields of a request come from [`Account::valid_request`].
const ROWS: &[Row] = &[
    Row("IdentityService/VerifyEmail", Field("token"), Some(Credential::VerifyLink)),
    Row("IdentityService/ResendVerificationEmail", Field("email"), None),
    Row("IdentityService/Login", Field("password"), Some(Credential::Password)),
    Row("IdentityService/Login", Field("email"), None),
    Row("IdentityService/ResolveToken", Field("auth_token"), Some(Credential::AuthToken)),
    Row("IdentityService/ResolveTokens", Field("auth_tokens"), Some(Credential::AuthToken)),
    Row("IdentityService/FindUser", Field("email"), None),
    Row("IdentityService/FindUser", Field("username"), None),
    Row("SessionService/RefreshSession", Field("refresh_token"), Some(Credential::Refresh)),
    Row("SessionService/Logout", Field("refresh_token"), Some(Credential::Refresh)),
    Row("SessionService/ListSessions", Bearer, Some(Credential::Access)),
    Row("SessionService/RevokeSession", Bearer, Some(Credential::Access)),
    Row("SessionService/RevokeSession", Field("session_id"), None),
    Row("SessionService/RevokeAllSessions", Bearer, Some(Credential::Access)),
    Row("SessionService/IntrospectToken", Field("access_token"), Some(Credential::Access)),
    Row("AccountService/GetAccount", Bearer, Some(Credential::Access)),
    Row("AccountService/UpdateAccount", Bearer, Some(Credential::Access)),
    Row("AccountService/ChangePassword", Bearer, Some(Credential::Access)),
    Row("AccountService/ChangePassword", Field("current_password"), Some(Credential::Password)),
    Row("AccountService/RequestEmailChange", Bearer, Some(Credential::Access)),
    Row("AccountService/RequestEmailChange", Field("current_password"), Some(Credential::Password)),
    Row("AccountService/ConfirmEmailChange", Field("token"), Some(Credential::ChangeLink)),
    Row("AccountService/UndoEmailChange", Field("token"), Some(Credential::UndoLink)),
    Row("AccountService/DeleteAccount", Bearer, Some(Credential::Access)),
    Row("AccountService/DeleteAccount", Field("current_password"), Some(Credential::Password)),
    Row("AccountService/RequestPasswordReset", Field("email"), None),
    Row("AccountService/ResetPassword", Field("token"), Some(Credential::ResetLink)),
    Row("AdminService/GetUser", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/ListUsers", Field("page_token"), None),
    Row("AdminService/SetVerified", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/DisableUser", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/EnableUser", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/UnlockUser", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/DeleteUser", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/RevokeUserSessions", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/StartPasswordReset", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/ListAuditEvents", Field("auth_token"), Some(Credential::AuthToken)),
    Row("AdminService/ListAuditEvents", Field("page_token"), None),
];

/// Methods without a slot.
const WITHOUT: [&str; 2] = ["IdentityService/Register", "SessionService/GetJwks"];

/// The user has a link that undoes an email change ([`Account::new`]).
const WITH_UNDO_LINK: bool = true;

const OK: &str = "OK";
const INACTIVE: &str = "INACTIVE";
const TAKEN: &str = "EMAIL_ALREADY_EXISTS";
const UNKNOWN_USER: &str = "USER_NOT_FOUND";
const BAD_LINK: &str = "INVALID_TOKEN";
const BAD_REFRESH: &str = "INVALID_REFRESH_TOKEN";
const BAD_ACCESS: &str = "INVALID_ACCESS_TOKEN";

fn path(method: &str) -> String {
    format!("/kairos.identity.v1.{method}")
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

async fn call_method(
    server: &TestServer,
    method: &str,
    fields: &[(&str, Value)],
    bearer: Option<&str>,
) -> Result<Vec<u8>, Status> {
    call(server, &path(method), fields, bearer).await
}

/// Returns `OK`, `INACTIVE` for an introspected token that is not active, or the reason of the error.
fn outcome(method: &str, answer: Result<Vec<u8>, Status>) -> String {
    match answer {
        Ok(bytes) if method == "SessionService/IntrospectToken" => {
            let is_active = proto::IntrospectTokenResponse::decode(&*bytes).unwrap().active;
            if is_active { OK.to_owned() } else { INACTIVE.to_owned() }
        }
        Ok(_) => OK.to_owned(),
        Err(refusal) => {
            assert_ne!(refusal.code(), Code::Internal, "{method}: {refusal:?}");
            refusal.get_details_error_info().unwrap_or_else(|| panic!("{method}: {refusal:?}")).reason
        }
    }
}

fn names<'a>(methods: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    methods.into_iter().map(path).collect()
}

/// Starts a server whose limits on failed logins and resends are too high to be reached.
async fn start_without_limits(database: &TestDatabase) -> TestServer {
    TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
        .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000")
        .start()
        .await
}

/// Returns the stored accounts, sessions and links in a form that any change of them changes.
fn stored_state(database: &TestDatabase) -> Vec<String> {
    let queries = [
        "SELECT username || email || password || is_verified || updated_at AS value FROM core_user ORDER BY id",
        "SELECT CAST(user_id AS TEXT) || refreshed_at AS value FROM core_session ORDER BY session_id",
        "SELECT CAST(user_id AS TEXT) || purpose || COALESCE(CAST(used_at AS TEXT), '-') || COALESCE(CAST(voided_at AS TEXT), '-') AS value \
         FROM core_mail_token ORDER BY id",
        "SELECT CAST(user_id AS TEXT) AS value FROM core_disabled_user",
    ];
    queries.iter().flat_map(|query| database.rows(query)).collect()
}

#[test]
fn every_method_is_in_both_tables() {
    let all: BTreeSet<String> = methods().into_iter().collect();
    let with_slots = ROWS.iter().map(|Row(method, ..)| *method).chain(WITHOUT);
    assert_eq!(names(with_slots), all, "each method has a row in ROWS or is in WITHOUT");
    assert_eq!(names(STATES.iter().map(|(method, _)| *method)), all, "each method has a row in STATES");
}

on_both_engines! {
    async fn a_credential_works_only_in_the_slots_of_its_kind(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = start_without_limits(&database).await;
        let ada = Account::new(&server, "ada", WITH_UNDO_LINK).await;
        let before = stored_state(&database);

        for Row(method, slot, right) in ROWS {
            for kind in CREDENTIALS.iter().filter(|kind| Some(**kind) != *right) {
                let answer = outcome(method, ada.call_with(&server, method, *slot, ada.credential(*kind)).await);
                assert_ne!(answer, OK, "{method} accepts {kind:?} in {slot:?}");
            }
        }
        assert_eq!(stored_state(&database), before, "refused calls change nothing");

        for (number, Row(method, slot, right)) in ROWS.iter().enumerate() {
            let Some(kind) = right else { continue };
            let account = Account::new(&server, &format!("user{number}"), *kind == Credential::UndoLink).await;
            if *kind == Credential::VerifyLink {
                // The link of the account is used up, and a new one is mailed only to an unverified email.
                let (admin, key) = ("AdminService/SetVerified", ("auth_token", text(&account.user.auth_token)));
                call_method(&server, admin, &[key, ("is_verified", Value::Flag(false))], None).await.unwrap();
                let resend = [("email", text(&address(&account.name))), ("return_mail_token", Value::Flag(true))];
                let response = call_method(&server, "IdentityService/ResendVerificationEmail", &resend, None).await.unwrap();
                let link = proto::ResendVerificationEmailResponse::decode(&*response).unwrap().mail_token;
                assert_eq!(outcome(method, account.call_with(&server, method, *slot, &link).await), OK, "{method}");
            } else {
                let answer = outcome(method, account.call_with(&server, method, *slot, account.credential(*kind)).await);
                assert_eq!(answer, OK, "{method} accepts {kind:?} in {slot:?}");
            }
        }
    }

    async fn only_a_service_token_authenticates_a_caller(engine: Engine) {
        let database = TestDatabase::new(engine);
        let open = start_without_limits(&database).await;
        let ada = Account::new(&open, "ada", WITH_UNDO_LINK).await;
        let file = CallersFile::new(&[("bff", &ServiceToken::from_random([7; 32]), "*", "*")]);
        let server = open.second_instance_with(&[("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())]).await;
        for kind in CREDENTIALS {
            let answer = call_method(&server, "SessionService/GetJwks", &[], Some(ada.credential(kind))).await;
            let expected = if kind == Credential::Service { OK } else { "CALLER_UNKNOWN" };
            assert_eq!(outcome("SessionService/GetJwks", answer), expected, "{kind:?}");
        }
    }
}
