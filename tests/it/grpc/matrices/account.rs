//! A registered user with one credential of each kind, and a valid request of the user to each method.

use kairos_identity::{callers::ServiceToken, proto};
use prost::Message as _;
use tonic::Status;

use super::{Bearer, CREDENTIALS, Credential, Field, ROWS, Row, Slot, call_method, path, text};
use crate::support::{
    people::{PASSWORD, address},
    raw::{Value, call},
    server::TestServer,
};

const NEW_PASSWORD: &str = "quartz-Lantern-57-meadow";

/// A registered user with one credential of each kind.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) user: proto::User,
    session_id: String,
    pub(super) credentials: [String; 8],
}

impl Account {
    /// Registers a user and requests each link with `return_mail_token`, which any caller may do where no
    /// file of callers is configured.
    pub(super) async fn new(server: &TestServer, name: &str) -> Self {
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

    pub(super) fn credential(&self, kind: Credential) -> &str {
        &self.credentials[CREDENTIALS.iter().position(|other| *other == kind).unwrap()]
    }

    /// Returns the fields and the bearer token of a valid request to this method, without those of slot
    /// `without`.
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
