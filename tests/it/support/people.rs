//! Users in the tests: registrations, logins, and users in a known state.

use kairos_identity::proto::{self, LoginRequest, RegisterRequest, User, VerifyEmailRequest};
use tonic::Request;

use super::{mail::verification_token, server::TestServer};

/// A password that the policy accepts for every user of the tests.
pub const PASSWORD: &str = "plum-Voyage-84-kettle";

/// Another password that the policy accepts for every user of the tests.
pub const NEW_PASSWORD: &str = "quartz-Lantern-57-meadow";

/// Returns the request that registers `name` with the email `NAME@example.com`.
pub fn registration(name: &str) -> RegisterRequest {
    RegisterRequest {
        username: name.to_owned(),
        email: address(name),
        password: PASSWORD.to_owned(),
        request_id: String::new(),
        return_mail_token: false,
    }
}

/// Returns `NAME@example.com`.
pub fn address(name: &str) -> String {
    format!("{name}@example.com")
}

/// Returns the login request of `name` with `password`.
pub fn login(name: &str, password: &str) -> LoginRequest {
    LoginRequest { email: address(name), password: password.to_owned() }
}

/// Returns a request whose metadata contain `client` as the IP address of the end user.
pub fn from<T>(client: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("kairos-client-ip", client.parse().unwrap());
    request
}

impl TestServer {
    /// Registers the user `name` and does not verify the email.
    pub async fn unverified_user(&self, name: &str) -> User {
        let answer = self.client().await.register(registration(name)).await.unwrap();
        answer.into_inner().user.unwrap()
    }

    /// Registers the user `name` and verifies the email, so that the user can log in.
    pub async fn member(&self, name: &str) -> User {
        self.unverified_user(name).await;
        let token = verification_token(self, &address(name)).await;
        let answer = self.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        answer.into_inner().user.unwrap()
    }
}

/// Returns the request that finds a user by email.
pub fn by_email(email: &str) -> proto::FindUserRequest {
    proto::FindUserRequest { key: Some(proto::find_user_request::Key::Email(email.to_owned())) }
}

/// Returns the request that finds a user by username.
pub fn by_username(username: &str) -> proto::FindUserRequest {
    proto::FindUserRequest { key: Some(proto::find_user_request::Key::Username(username.to_owned())) }
}
