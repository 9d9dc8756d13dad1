//! New passwords: judging one takes the time of a hashing thread, so each judgment is counted before.

use kairos_identity::proto::{
    ChangePasswordRequest, RegisterRequest, RequestPasswordResetRequest, ResetPasswordRequest,
    account_service_client::AccountServiceClient,
};
use tonic::Code;

use crate::support::{
    errors::{assert_refused, violations},
    mail::newest_mail,
    people::{NEW_PASSWORD, PASSWORD, address, from, registration},
    server::TestServer,
    sessions::{acting, log_in},
};

on_both_engines! {
    async fn registrations_with_refused_passwords_are_counted(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_CLIENT_REGISTRATIONS_MAX", "2").start().await;
        let mut client = server.client().await;
        let register = |password: &str| {
            from("192.0.2.1", RegisterRequest { password: password.into(), ..registration("ada") })
        };
        // The length is checked without cost.
        for password in ["short", "short", "short", "password123", "password123"] {
            let refusal = client.register(register(password)).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, "password");
        }
        for password in ["password123", PASSWORD] {
            let refusal = client.register(register(password)).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
    }

    async fn new_passwords_are_judged_after_they_were_counted(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_PASSWORD_JUDGED_MAX", "2").start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let change = |current: &str, new: &str| {
            acting(&tokens, ChangePasswordRequest { current_password: current.into(), new_password: new.into() })
        };
        let wrong = accounts.change_password(change("wrong", "password123")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        for _ in 0..2 {
            let weak = accounts.change_password(change(PASSWORD, "password123")).await.unwrap_err();
            assert_refused(&weak, Code::InvalidArgument, "INVALID_FIELDS");
        }
        let refusal = accounts.change_password(change(PASSWORD, NEW_PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");

        // Each link has a count of its own.
        for link in 0..2 {
            let request = RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
            accounts.request_password_reset(request).await.unwrap();
            let token = newest_mail(&server, &address("ada"), 2 + link).await.token();
            let reset = |new: &str| ResetPasswordRequest { token: token.clone(), new_password: new.into() };
            for _ in 0..2 {
                let weak = accounts.reset_password(reset("password123")).await.unwrap_err();
                assert_refused(&weak, Code::InvalidArgument, "INVALID_FIELDS");
            }
            let refusal = accounts.reset_password(reset(NEW_PASSWORD)).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
    }
}
