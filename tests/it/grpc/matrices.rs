//! Which token opens what, and what is left of an account in each of its states: every method, as the API's own descriptors have them. A
//! method without a row fails here.

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

const OTHER: &str = "quartz-Lantern-57-meadow";

/// Everything that somebody may take for a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    VerifyLink,
    ResetLink,
    ChangeLink,
    Access,
    Refresh,
    AuthToken,
    Service,
    Password,
}

const KINDS: [Kind; 8] = [
    Kind::VerifyLink,
    Kind::ResetLink,
    Kind::ChangeLink,
    Kind::Access,
    Kind::Refresh,
    Kind::AuthToken,
    Kind::Service,
    Kind::Password,
];

/// Where a method takes a proof or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// In `authorization: Bearer`.
    Bearer,
    /// In a field of the request.
    Field(&'static str),
}
use Slot::{Bearer, Field};

/// A slot of a method, and the one kind that fits; none where what it takes is of no kind.
struct Row(&'static str, Slot, Option<Kind>);

/// Every slot there is. What else a request must have is in [`rest`].
const ROWS: &[Row] = &[
    Row("IdentityService/VerifyEmail", Field("token"), Some(Kind::VerifyLink)),
    Row("IdentityService/ResendVerificationEmail", Field("email"), None),
    Row("IdentityService/Login", Field("password"), Some(Kind::Password)),
    Row("IdentityService/Login", Field("email"), None),
    Row("IdentityService/ResolveToken", Field("auth_token"), Some(Kind::AuthToken)),
    Row("IdentityService/ResolveTokens", Field("auth_tokens"), Some(Kind::AuthToken)),
    Row("IdentityService/FindUser", Field("email"), None),
    Row("IdentityService/FindUser", Field("username"), None),
    Row("SessionService/RefreshSession", Field("refresh_token"), Some(Kind::Refresh)),
    Row("SessionService/Logout", Field("refresh_token"), Some(Kind::Refresh)),
    Row("SessionService/ListSessions", Bearer, Some(Kind::Access)),
    Row("SessionService/RevokeSession", Bearer, Some(Kind::Access)),
    Row("SessionService/RevokeSession", Field("session_id"), None),
    Row("SessionService/RevokeAllSessions", Bearer, Some(Kind::Access)),
    Row("SessionService/IntrospectToken", Field("access_token"), Some(Kind::Access)),
    Row("AccountService/GetAccount", Bearer, Some(Kind::Access)),
    Row("AccountService/UpdateAccount", Bearer, Some(Kind::Access)),
    Row("AccountService/ChangePassword", Bearer, Some(Kind::Access)),
    Row("AccountService/ChangePassword", Field("current_password"), Some(Kind::Password)),
    Row("AccountService/RequestEmailChange", Bearer, Some(Kind::Access)),
    Row("AccountService/RequestEmailChange", Field("current_password"), Some(Kind::Password)),
    Row("AccountService/ConfirmEmailChange", Field("token"), Some(Kind::ChangeLink)),
    Row("AccountService/DeleteAccount", Bearer, Some(Kind::Access)),
    Row("AccountService/DeleteAccount", Field("current_password"), Some(Kind::Password)),
    Row("AccountService/RequestPasswordReset", Field("email"), None),
    Row("AccountService/ResetPassword", Field("token"), Some(Kind::ResetLink)),
    Row("AdminService/GetUser", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/ListUsers", Field("page_token"), None),
    Row("AdminService/SetVerified", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/DisableUser", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/EnableUser", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/UnlockUser", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/DeleteUser", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/RevokeUserSessions", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/StartPasswordReset", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/ListAuditEvents", Field("auth_token"), Some(Kind::AuthToken)),
    Row("AdminService/ListAuditEvents", Field("page_token"), None),
];

/// Methods that take neither proof nor name.
const WITHOUT: [&str; 2] = ["IdentityService/Register", "SessionService/GetJwks"];

/// What stands in each state of an account: unverified, verified, disabled, deleted. The tokens were given before.
const STATES: &[(&str, [&str; 4])] = &[
    ("IdentityService/Register", [EXISTS, EXISTS, EXISTS, OK]),
    ("IdentityService/VerifyEmail", [OK, "EMAIL_ALREADY_VERIFIED", NO_LINK, NO_LINK]),
    ("IdentityService/ResendVerificationEmail", [OK, OK, OK, OK]),
    ("IdentityService/Login", ["EMAIL_NOT_VERIFIED", OK, "ACCOUNT_DISABLED", "INVALID_CREDENTIALS"]),
    ("IdentityService/ResolveToken", [OK, OK, OK, NOBODY]),
    ("IdentityService/ResolveTokens", [OK, OK, OK, OK]),
    ("IdentityService/FindUser", [OK, OK, OK, NOBODY]),
    ("SessionService/RefreshSession", [NO_SESSION, OK, NO_SESSION, NO_SESSION]),
    ("SessionService/Logout", [OK, OK, OK, OK]),
    ("SessionService/ListSessions", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("SessionService/RevokeSession", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("SessionService/RevokeAllSessions", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("SessionService/IntrospectToken", [INACTIVE, OK, INACTIVE, INACTIVE]),
    ("SessionService/GetJwks", [OK, OK, OK, OK]),
    ("AccountService/GetAccount", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("AccountService/UpdateAccount", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("AccountService/ChangePassword", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("AccountService/RequestEmailChange", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("AccountService/ConfirmEmailChange", [NO_LINK, OK, NO_LINK, NO_LINK]),
    ("AccountService/DeleteAccount", [NO_PROOF, OK, NO_PROOF, NO_PROOF]),
    ("AccountService/RequestPasswordReset", [OK, OK, OK, OK]),
    ("AccountService/ResetPassword", [NO_LINK, OK, NO_LINK, NO_LINK]),
    ("AdminService/GetUser", [OK, OK, OK, NOBODY]),
    ("AdminService/ListUsers", [OK, OK, OK, OK]),
    ("AdminService/SetVerified", [OK, OK, OK, NOBODY]),
    ("AdminService/DisableUser", [OK, OK, OK, NOBODY]),
    ("AdminService/EnableUser", [OK, OK, OK, NOBODY]),
    ("AdminService/UnlockUser", [OK, OK, OK, NOBODY]),
    ("AdminService/DeleteUser", [OK, OK, OK, NOBODY]),
    ("AdminService/RevokeUserSessions", [OK, OK, OK, NOBODY]),
    ("AdminService/StartPasswordReset", [OK, OK, "ACCOUNT_DISABLED", NOBODY]),
    ("AdminService/ListAuditEvents", [OK, OK, OK, OK]),
];
const OK: &str = "OK";
const INACTIVE: &str = "INACTIVE";
const EXISTS: &str = "EMAIL_ALREADY_EXISTS";
const NOBODY: &str = "USER_NOT_FOUND";
const NO_LINK: &str = "INVALID_TOKEN";
const NO_SESSION: &str = "INVALID_REFRESH_TOKEN";
const NO_PROOF: &str = "INVALID_ACCESS_TOKEN";

const UNVERIFIED: usize = 0;
const DISABLED: usize = 2;
const DELETED: usize = 3;

fn path(method: &str) -> String {
    format!("/kairos.identity.v1.{method}")
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// Somebody with one of each kind.
struct Person {
    name: String,
    user: proto::User,
    session_id: String,
    held: [String; 8],
}

impl Person {
    /// Registers, and asks for each link to mail it themselves: where nobody is configured, everybody may.
    async fn new(server: &TestServer, name: &str) -> Self {
        let asking = ("return_mail_token", Value::Flag(true));
        let email = ("email", text(&address(name)));
        let register =
            [("username", text(name)), email.clone(), ("password", text(PASSWORD)), asking.clone()];
        let registered = call(server, &path("IdentityService/Register"), &register, None).await.unwrap();
        let registered = proto::RegisterResponse::decode(&*registered).unwrap();
        let verify = registered.mail_token;
        call(server, &path("IdentityService/VerifyEmail"), &[("token", text(&verify))], None).await.unwrap();
        let login = [email.clone(), ("password", text(PASSWORD))];
        let login = call(server, &path("IdentityService/Login"), &login, None).await.unwrap();
        let tokens = proto::LoginResponse::decode(&*login).unwrap().tokens.unwrap();
        let new_email = ("new_email", text(&address(&format!("{name}-new"))));
        let change = [("current_password", text(PASSWORD)), new_email, asking.clone()];
        let change =
            path_and(server, "AccountService/RequestEmailChange", &change, Some(&tokens.access_token)).await;
        let change = proto::RequestEmailChangeResponse::decode(&*change.unwrap()).unwrap().mail_token;
        let reset = path_and(server, "AccountService/RequestPasswordReset", &[email, asking], None).await;
        let reset = proto::RequestPasswordResetResponse::decode(&*reset.unwrap()).unwrap().mail_token;
        let user = registered.user.unwrap();
        let service = ServiceToken::from_random([7; 32]).expose().to_owned();
        let held = [
            verify,
            reset,
            change,
            tokens.access_token,
            tokens.refresh_token,
            user.auth_token.clone(),
            service,
            PASSWORD.to_owned(),
        ];
        Self { name: name.to_owned(), user, session_id: tokens.session_id, held }
    }

    fn holds(&self, kind: Kind) -> &str {
        &self.held[KINDS.iter().position(|other| *other == kind).unwrap()]
    }

    /// All that a request of this method has when nothing is wrong with it, but for one slot.
    fn rest(&self, method: &str, without: Slot) -> (Vec<(&'static str, Value)>, Option<String>) {
        let email = text(&address(&self.name));
        let mut fields = match method {
            "IdentityService/Register" => {
                vec![
                    ("username", text(&format!("{} again", self.name))),
                    ("email", email),
                    ("password", text(OTHER)),
                ]
            }
            "IdentityService/Login" => vec![("email", email), ("password", text(PASSWORD))],
            "IdentityService/ResendVerificationEmail" | "AccountService/RequestPasswordReset" => {
                vec![("email", email)]
            }
            "SessionService/RevokeSession" => vec![("session_id", text(&self.session_id))],
            "AccountService/UpdateAccount" => vec![("username", text(&format!("{} other", self.name)))],
            "AccountService/ChangePassword" => {
                vec![("current_password", text(PASSWORD)), ("new_password", text(OTHER))]
            }
            "AccountService/RequestEmailChange" => {
                vec![
                    ("current_password", text(PASSWORD)),
                    ("new_email", text(&address(&format!("{}-x", self.name)))),
                ]
            }
            "AccountService/DeleteAccount" => vec![("current_password", text(PASSWORD))],
            "AccountService/ResetPassword" => vec![("new_password", text(OTHER))],
            "AdminService/SetVerified" => vec![("is_verified", Value::Flag(true))],
            _ => Vec::new(),
        };
        fields.retain(|(name, _)| Field(name) != without);
        let mut bearer = None;
        for Row(_, slot, right) in ROWS.iter().filter(|Row(of, slot, _)| *of == method && *slot != without) {
            match (slot, right) {
                (Bearer, Some(kind)) => bearer = Some(self.holds(*kind).to_owned()),
                (Field(name), Some(kind)) if fields.iter().all(|(there, _)| there != name) => {
                    fields.push((*name, text(self.holds(*kind))));
                }
                _ => {}
            }
        }
        (fields, bearer)
    }

    /// Calls a method with something in one of its slots.
    async fn show(
        &self,
        server: &TestServer,
        method: &str,
        slot: Slot,
        shown: &str,
    ) -> Result<Vec<u8>, Status> {
        let (mut fields, mut bearer) = self.rest(method, slot);
        match slot {
            Bearer => bearer = Some(shown.to_owned()),
            Field(name) => fields.push((name, text(shown))),
        }
        path_and(server, method, &fields, bearer.as_deref()).await
    }
}

async fn path_and(
    server: &TestServer,
    method: &str,
    fields: &[(&str, Value)],
    bearer: Option<&str>,
) -> Result<Vec<u8>, Status> {
    call(server, &path(method), fields, bearer).await
}

/// What an answer says: OK, that a token is of no use, or the reason of a refusal.
fn said(method: &str, answer: Result<Vec<u8>, Status>) -> String {
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

/// A service where nobody has to wait, whatever they get wrong.
async fn patient(database: &TestDatabase) -> TestServer {
    TestServer::on_url(database.url().to_owned())
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
        .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000")
        .start()
        .await
}

/// Accounts, sessions and links, but for when they were looked at.
fn state(database: &TestDatabase) -> Vec<String> {
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
fn every_method_has_its_rows() {
    let all: BTreeSet<String> = methods().into_iter().collect();
    let with_slots = ROWS.iter().map(|Row(method, ..)| *method).chain(WITHOUT);
    assert_eq!(names(with_slots), all, "each method has a row of ROWS, or takes nothing");
    assert_eq!(names(STATES.iter().map(|(method, _)| *method)), all, "each method has a row of STATES");
}

on_both_engines! {
    async fn a_token_is_good_for_its_own_purpose_and_for_nothing_else(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = patient(&database).await;
        let ada = Person::new(&server, "ada").await;
        let before = state(&database);

        for Row(method, slot, right) in ROWS {
            for kind in KINDS.iter().filter(|kind| Some(**kind) != *right) {
                let answer = said(method, ada.show(&server, method, *slot, ada.holds(*kind)).await);
                assert_ne!(answer, OK, "{method} takes {kind:?} in {slot:?}");
            }
        }
        assert_eq!(state(&database), before, "what was refused changed nothing");

        for (number, Row(method, slot, right)) in ROWS.iter().enumerate() {
            let Some(kind) = right else { continue };
            let person = Person::new(&server, &format!("person{number}")).await;
            if *kind == Kind::VerifyLink {
                let (admin, key) = ("AdminService/SetVerified", ("auth_token", text(&person.user.auth_token)));
                path_and(&server, admin, &[key, ("is_verified", Value::Flag(false))], None).await.unwrap();
                let asking = [("email", text(&address(&person.name))), ("return_mail_token", Value::Flag(true))];
                let asked = path_and(&server, "IdentityService/ResendVerificationEmail", &asking, None).await.unwrap();
                let link = proto::ResendVerificationEmailResponse::decode(&*asked).unwrap().mail_token;
                assert_eq!(said(method, person.show(&server, method, *slot, &link).await), OK, "{method}");
            } else {
                let answer = said(method, person.show(&server, method, *slot, person.holds(*kind)).await);
                assert_eq!(answer, OK, "{method} takes {kind:?} in {slot:?}");
            }
        }
    }

    async fn a_caller_is_proven_by_its_own_token_and_by_nothing_of_a_persons(engine: Engine) {
        let database = TestDatabase::new(engine);
        let open = patient(&database).await;
        let ada = Person::new(&open, "ada").await;
        let file = CallersFile::new(&[("bff", &ServiceToken::from_random([7; 32]), "*", "*")]);
        let server = open.twin_with(&[("KAIROS_IDENTITY_CALLERS_FILE", file.path().to_str().unwrap())]).await;
        for kind in KINDS {
            let answer = path_and(&server, "SessionService/GetJwks", &[], Some(ada.holds(kind))).await;
            let expected = if kind == Kind::Service { OK } else { "CALLER_UNKNOWN" };
            assert_eq!(said("SessionService/GetJwks", answer), expected, "{kind:?}");
        }
    }

    async fn each_state_of_an_account_has_its_answers(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = patient(&database).await;
        for (row, (method, answers)) in STATES.iter().enumerate() {
            for (state, expected) in answers.iter().enumerate() {
                let mut person = Person::new(&server, &format!("p{row}-{state}")).await;
                bring_into(&server, &mut person, state).await;
                // No slot is left out: a request with which nothing is wrong.
                let (mut fields, bearer) = person.rest(method, Field(""));
                if *method == "IdentityService/FindUser" {
                    fields.push(("email", text(&address(&person.name))));
                }
                let answer = said(method, path_and(&server, method, &fields, bearer.as_deref()).await);
                assert_eq!(answer, *expected, "{method} in state {state}");
            }
        }
    }
}

async fn bring_into(server: &TestServer, person: &mut Person, state: usize) {
    let key = ("auth_token", text(&person.user.auth_token));
    match state {
        UNVERIFIED => {
            let set = [key, ("is_verified", Value::Flag(false))];
            path_and(server, "AdminService/SetVerified", &set, None).await.unwrap();
            let asking = [("email", text(&address(&person.name))), ("return_mail_token", Value::Flag(true))];
            let asked =
                path_and(server, "IdentityService/ResendVerificationEmail", &asking, None).await.unwrap();
            person.held[0] = proto::ResendVerificationEmailResponse::decode(&*asked).unwrap().mail_token;
        }
        DISABLED => drop(path_and(server, "AdminService/DisableUser", &[key], None).await.unwrap()),
        DELETED => drop(path_and(server, "AdminService/DeleteUser", &[key], None).await.unwrap()),
        _ => {}
    }
}
