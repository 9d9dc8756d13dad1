//! Two tables over every method in the API descriptors: the credential that each slot accepts ([`ROWS`]), and
//! the answer in each state of an account ([`STATES`]). A method that is missing from a table fails a test.

use std::collections::BTreeSet;

use kairos_identity::{callers::ServiceToken, proto};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    api::methods,
    callers::CallersFile,
    engine::TestDatabase,
    people::{PASSWORD, address},
    raw::{Value, call},
    server::TestServer,
};

const NEW_PASSWORD: &str = "quartz-Lantern-57-meadow";

/// A secret or identifier that a client could send where another one is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    VerifyLink,
    ResetLink,
    ChangeLink,
    Access,
    Refresh,
    AuthToken,
    Service,
    Password,
}

const CREDENTIALS: [Credential; 8] = [
    Credential::VerifyLink,
    Credential::ResetLink,
    Credential::ChangeLink,
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

/// The answers of each method to an unverified, verified, disabled and deleted account. Its credentials were
/// issued before the account entered that state, except the verification link of an unverified account.
const STATES: &[(&str, [&str; 4])] = &[
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
const OK: &str = "OK";
const INACTIVE: &str = "INACTIVE";
const TAKEN: &str = "EMAIL_ALREADY_EXISTS";
const UNKNOWN_USER: &str = "USER_NOT_FOUND";
const BAD_LINK: &str = "INVALID_TOKEN";
const BAD_REFRESH: &str = "INVALID_REFRESH_TOKEN";
const BAD_ACCESS: &str = "INVALID_ACCESS_TOKEN";

const UNVERIFIED: usize = 0;
const DISABLED: usize = 2;
const DELETED: usize = 3;

fn path(method: &str) -> String {
    format!("/kairos.identity.v1.{method}")
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A registered user with one credential of each kind.
struct Account {
    name: String,
    user: proto::User,
    session_id: String,
    credentials: [String; 8],
}

impl Account {
    /// Registers a user and requests each link with `return_mail_token`, which any caller may do where no
    /// file of callers is configured.
    async fn new(server: &TestServer, name: &str) -> Self {
        let returned = ("return_mail_token", Value::Flag(true));
        let email = ("email", text(&address(name)));
        let register =
            [("username", text(name)), email.clone(), ("password", text(PASSWORD)), returned.clone()];
        let registered = call(server, &path("IdentityService/Register"), &register, None).await.unwrap();
        let registered = proto::RegisterResponse::decode(&*registered).unwrap();
        let verify = registered.mail_token;
        call(server, &path("IdentityService/VerifyEmail"), &[("token", text(&verify))], None).await.unwrap();
        let login = [email.clone(), ("password", text(PASSWORD))];
        let login = call(server, &path("IdentityService/Login"), &login, None).await.unwrap();
        let tokens = proto::LoginResponse::decode(&*login).unwrap().tokens.unwrap();
        let new_email = ("new_email", text(&address(&format!("{name}-new"))));
        let change = [("current_password", text(PASSWORD)), new_email, returned.clone()];
        let change =
            call_method(server, "AccountService/RequestEmailChange", &change, Some(&tokens.access_token))
                .await;
        let change = proto::RequestEmailChangeResponse::decode(&*change.unwrap()).unwrap().mail_token;
        let reset =
            call_method(server, "AccountService/RequestPasswordReset", &[email, returned], None).await;
        let reset = proto::RequestPasswordResetResponse::decode(&*reset.unwrap()).unwrap().mail_token;
        let user = registered.user.unwrap();
        let service = ServiceToken::from_random([7; 32]).expose().to_owned();
        let credentials = [
            verify,
            reset,
            change,
            tokens.access_token,
            tokens.refresh_token,
            user.auth_token.clone(),
            service,
            PASSWORD.to_owned(),
        ];
        Self { name: name.to_owned(), user, session_id: tokens.session_id, credentials }
    }

    fn credential(&self, kind: Credential) -> &str {
        &self.credentials[CREDENTIALS.iter().position(|other| *other == kind).unwrap()]
    }

    /// Returns the fields and the bearer token of a valid request to this method, without those of slot
    /// `without`.
    fn valid_request(&self, method: &str, without: Slot) -> (Vec<(&'static str, Value)>, Option<String>) {
        let email = text(&address(&self.name));
        let mut fields = match method {
            "IdentityService/Register" => {
                vec![
                    ("username", text(&format!("{} again", self.name))),
                    ("email", email),
                    ("password", text(NEW_PASSWORD)),
                ]
            }
            "IdentityService/Login" => vec![("email", email), ("password", text(PASSWORD))],
            "IdentityService/ResendVerificationEmail" | "AccountService/RequestPasswordReset" => {
                vec![("email", email)]
            }
            "SessionService/RevokeSession" => vec![("session_id", text(&self.session_id))],
            "AccountService/UpdateAccount" => vec![("username", text(&format!("{} other", self.name)))],
            "AccountService/ChangePassword" => {
                vec![("current_password", text(PASSWORD)), ("new_password", text(NEW_PASSWORD))]
            }
            "AccountService/RequestEmailChange" => {
                vec![
                    ("current_password", text(PASSWORD)),
                    ("new_email", text(&address(&format!("{}-x", self.name)))),
                ]
            }
            "AccountService/DeleteAccount" => vec![("current_password", text(PASSWORD))],
            "AccountService/ResetPassword" => vec![("new_password", text(NEW_PASSWORD))],
            "AdminService/SetVerified" => vec![("is_verified", Value::Flag(true))],
            _ => Vec::new(),
        };
        fields.retain(|(name, _)| Field(name) != without);
        let mut bearer = None;
        for Row(_, slot, right) in ROWS.iter().filter(|Row(of, slot, _)| *of == method && *slot != without) {
            match (slot, right) {
                (Bearer, Some(kind)) => bearer = Some(self.credential(*kind).to_owned()),
                (Field(name), Some(kind)) if fields.iter().all(|(there, _)| there != name) => {
                    fields.push((*name, text(self.credential(*kind))));
                }
                _ => {}
            }
        }
        (fields, bearer)
    }

    /// Calls a method with `value` in this slot and a valid request around it.
    async fn call_with(
        &self,
        server: &TestServer,
        method: &str,
        slot: Slot,
        value: &str,
    ) -> Result<Vec<u8>, Status> {
        let (mut fields, mut bearer) = self.valid_request(method, slot);
        match slot {
            Bearer => bearer = Some(value.to_owned()),
            Field(name) => fields.push((name, text(value))),
        }
        call_method(server, method, &fields, bearer.as_deref()).await
    }
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
        let ada = Account::new(&server, "ada").await;
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
            let account = Account::new(&server, &format!("user{number}")).await;
            if *kind == Credential::VerifyLink {
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
        let ada = Account::new(&open, "ada").await;
        let file = CallersFile::new(&[("bff", &ServiceToken::from_random([7; 32]), "*", "*")]);
        let server = open.second_instance_with(&[("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())]).await;
        for kind in CREDENTIALS {
            let answer = call_method(&server, "SessionService/GetJwks", &[], Some(ada.credential(kind))).await;
            let expected = if kind == Credential::Service { OK } else { "CALLER_UNKNOWN" };
            assert_eq!(outcome("SessionService/GetJwks", answer), expected, "{kind:?}");
        }
    }

    async fn each_method_answers_as_expected_in_each_account_state(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = start_without_limits(&database).await;
        for (row, (method, answers)) in STATES.iter().enumerate() {
            for (state, expected) in answers.iter().enumerate() {
                let mut account = Account::new(&server, &format!("p{row}-{state}")).await;
                bring_into(&server, &mut account, state).await;
                // `Field("")` is no slot, so the request is complete.
                let (mut fields, bearer) = account.valid_request(method, Field(""));
                if *method == "IdentityService/FindUser" {
                    fields.push(("email", text(&address(&account.name))));
                }
                let answer = outcome(method, call_method(&server, method, &fields, bearer.as_deref()).await);
                assert_eq!(answer, *expected, "{method} in state {state}");
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
            account.credentials[0] =
                proto::ResendVerificationEmailResponse::decode(&*response).unwrap().mail_token;
        }
        DISABLED => drop(call_method(server, "AdminService/DisableUser", &[key], None).await.unwrap()),
        DELETED => drop(call_method(server, "AdminService/DeleteUser", &[key], None).await.unwrap()),
        _ => {}
    }
}
