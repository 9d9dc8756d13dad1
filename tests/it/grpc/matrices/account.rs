//! A registered user with one credential of each kind, and a valid request of the user to each method.

use kairos_identity::{callers::ServiceToken, proto};
use prost::Message as _;
use tonic::Status;

use super::{Bearer, CREDENTIALS, Credential, Field, ROWS, Row, Slot, call_method, path, text};
use crate::support::{
    mail::link_to,
    people::{NEW_PASSWORD, PASSWORD, address},
    raw::{Value, call},
    server::TestServer,
};

/// A registered user with one credential of each kind.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) user: proto::User,
    session_id: String,
    /// In the order of [`CREDENTIALS`].
    pub(super) credentials: [String; 9],
}

impl Account {
    /// Registers a user and requests each link with `return_mail_token`, which any caller may do where no
    /// file of callers is configured. With `has_undo_link`, first changes the email and changes it back, so
    /// that there is a link that undoes the second change; otherwise that credential is empty.
    pub(super) async fn new(server: &TestServer, name: &str, has_undo_link: bool) -> Self {
        let returned = ("return_mail_token", Value::Flag(true));
        let email = ("email", text(&address(name)));
        let register =
            [("username", text(name)), email.clone(), ("password", text(PASSWORD)), returned.clone()];
        let registered = call(server, &path("IdentityService/Register"), &register, None).await.unwrap();
        let registered = proto::RegisterResponse::decode(&*registered).unwrap();
        let verify = registered.mail_token;
        call(server, &path("IdentityService/VerifyEmail"), &[("token", text(&verify))], None).await.unwrap();
        let undo = if has_undo_link { undo_link(server, name).await } else { String::new() };
        let tokens = logged_in(server, &address(name)).await;
        let change = change_link(server, &tokens, &address(&format!("{name}-new"))).await;
        let reset =
            call_method(server, "AccountService/RequestPasswordReset", &[email, returned], None).await;
        let reset = proto::RequestPasswordResetResponse::decode(&*reset.unwrap()).unwrap().mail_token;
        let user = registered.user.unwrap();
        let service = ServiceToken::from_random([7; 32]).expose().to_owned();
        let credentials = [
            verify,
            reset,
            change,
            undo,
            tokens.access_token,
            tokens.refresh_token,
            user.auth_token.clone(),
            service,
            PASSWORD.to_owned(),
        ];
        Self { name: name.to_owned(), user, session_id: tokens.session_id, credentials }
    }

    pub(super) fn credential(&self, kind: Credential) -> &str {
        &self.credentials[CREDENTIALS.iter().position(|other| *other == kind).unwrap()]
    }

    /// Returns the fields and the bearer token of a valid request to this method. The slot `without` stays
    /// empty.
    pub(super) fn valid_request(
        &self,
        method: &str,
        without: Slot,
    ) -> (Vec<(&'static str, Value)>, Option<String>) {
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
    pub(super) async fn call_with(
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

/// Changes the email of a user and changes it back. Returns the token of the link that undoes the second
/// change.
async fn undo_link(server: &TestServer, name: &str) -> String {
    let (email, other_email) = (address(name), address(&format!("{name}-other")));
    for (from, to) in [(&email, &other_email), (&other_email, &email)] {
        let tokens = logged_in(server, from).await;
        let fields = [("token", text(&change_link(server, &tokens, to).await))];
        call_method(server, "AccountService/ConfirmEmailChange", &fields, None).await.unwrap();
    }
    link_to(server, &other_email, "undo-email-change").await
}

/// Logs in the user with this email.
async fn logged_in(server: &TestServer, email: &str) -> proto::SessionTokens {
    let login = [("email", text(email)), ("password", text(PASSWORD))];
    let login = call_method(server, "IdentityService/Login", &login, None).await.unwrap();
    proto::LoginResponse::decode(&*login).unwrap().tokens.unwrap()
}

/// Returns the token of a link that changes the email of the acting user.
async fn change_link(server: &TestServer, tokens: &proto::SessionTokens, new_email: &str) -> String {
    let change = [
        ("current_password", text(PASSWORD)),
        ("new_email", text(new_email)),
        ("return_mail_token", Value::Flag(true)),
    ];
    let change =
        call_method(server, "AccountService/RequestEmailChange", &change, Some(&tokens.access_token)).await;
    proto::RequestEmailChangeResponse::decode(&*change.unwrap()).unwrap().mail_token
}
