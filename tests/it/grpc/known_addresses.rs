//! The client addresses from which a user has begun a session.

use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, DeleteAccountRequest, RequestEmailChangeRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, SessionTokens, VerifyEmailRequest,
    account_service_client::AccountServiceClient,
};
use tonic::Code;

use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    mail::{newest_mail, verification_token},
    people::{NEW_PASSWORD, PASSWORD, address, from, login, registration},
    server::TestServer,
    sessions::acting,
};

/// Logs in from `192.0.2.1` and returns the tokens.
async fn log_in_from_home(server: &TestServer, name: &str, password: &str) -> SessionTokens {
    let answer = server.client().await.login(from("192.0.2.1", login(name, password))).await.unwrap();
    answer.into_inner().tokens.unwrap()
}

fn known(database: &TestDatabase) -> usize {
    database.count("core_known_address")
}

on_both_engines! {
    async fn only_a_session_makes_an_address_known(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let mut client = server.client().await;
        // A stranger registers the email of the owner first, and so knows the right password. No session
        // begins, because the email is not verified.
        client.register(registration("ada")).await.unwrap();
        for number in 0..20 {
            let refusal = client.login(from(&format!("198.51.100.{number}"), login("ada", PASSWORD))).await.unwrap_err();
            assert_refused(&refusal, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
        }
        assert_eq!(known(&database), 0);

        let token = verification_token(&server, &address("ada")).await;
        client.verify_email(VerifyEmailRequest { token }).await.unwrap();
        let tokens = log_in_from_home(&server, "ada", PASSWORD).await;
        assert_eq!(known(&database), 1);
        let mut request = acting(&tokens, RequestEmailChangeRequest {
            current_password: PASSWORD.into(),
            new_email: address("new"),
            return_mail_token: false,
        });
        request.metadata_mut().insert("kairos-client-ip", "198.51.100.1".parse().unwrap());
        AccountServiceClient::new(server.channel().await).request_email_change(request).await.unwrap();
        assert_eq!(known(&database), 1, "a right password alone makes no address known");
    }

    async fn each_change_of_an_account_removes_its_known_addresses(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await.auth_token;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let operator = |arguments: &[&str]| {
            assert!(server.command(&[&["user"], arguments].concat()).output().unwrap().status.success());
        };

        let tokens = log_in_from_home(&server, "ada", PASSWORD).await;
        let change = ChangePasswordRequest { current_password: PASSWORD.into(), new_password: NEW_PASSWORD.into() };
        accounts.change_password(acting(&tokens, change)).await.unwrap();
        assert_eq!(known(&database), 0, "a change of the password");

        log_in_from_home(&server, "ada", NEW_PASSWORD).await;
        let reset = RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
        accounts.request_password_reset(reset).await.unwrap();
        let token = newest_mail(&server, &address("ada"), 3).await.token();
        accounts.reset_password(ResetPasswordRequest { token, new_password: PASSWORD.into() }).await.unwrap();
        assert_eq!(known(&database), 0, "a reset of the password");

        for steps in [&[&["unverify", &*ada][..], &["verify", &ada]][..], &[&["disable", &ada], &["enable", &ada]]] {
            log_in_from_home(&server, "ada", PASSWORD).await;
            assert_eq!(known(&database), 1);
            for step in steps {
                operator(step);
                assert_eq!(known(&database), 0, "{step:?}");
            }
        }

        let tokens = log_in_from_home(&server, "ada", PASSWORD).await;
        let change = RequestEmailChangeRequest {
            current_password: PASSWORD.into(),
            new_email: address("eve"),
            return_mail_token: false,
        };
        accounts.request_email_change(acting(&tokens, change)).await.unwrap();
        let token = newest_mail(&server, &address("eve"), 1).await.token();
        accounts.confirm_email_change(ConfirmEmailChangeRequest { token }).await.unwrap();
        assert_eq!(known(&database), 0, "a change of the email");

        let tokens = log_in_from_home(&server, "eve", PASSWORD).await;
        let deletion = DeleteAccountRequest { current_password: PASSWORD.into() };
        accounts.delete_account(acting(&tokens, deletion)).await.unwrap();
        assert_eq!(known(&database), 0, "a deletion");
    }

    async fn a_reset_of_the_password_clears_the_failures_at_known_addresses(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let failures = || database.count("core_throttle WHERE kind = 'account-password-at'");
        log_in_from_home(&server, "ada", PASSWORD).await;
        let wrong = from("192.0.2.1", login("ada", "wrong"));
        server.client().await.login(wrong).await.unwrap_err();
        assert_eq!(failures(), 1);

        let mut accounts = AccountServiceClient::new(server.channel().await);
        let reset = RequestPasswordResetRequest { email: address("ada"), return_mail_token: false };
        accounts.request_password_reset(reset).await.unwrap();
        let token = newest_mail(&server, &address("ada"), 2).await.token();
        accounts.reset_password(ResetPasswordRequest { token, new_password: NEW_PASSWORD.into() }).await.unwrap();

        assert_eq!(failures(), 0);
    }

    async fn all_known_addresses_of_a_user_together_have_one_limit(engine: Engine) {
        const ADDRESSES: usize = 8;
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "2").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        let place = |number: usize| format!("192.0.2.{number}");
        for number in 0..ADDRESSES {
            client.login(from(&place(number), login("ada", PASSWORD))).await.unwrap();
        }

        let mut compared = 0;
        for number in (0..ADDRESSES).chain(0..ADDRESSES) {
            let refusal = client.login(from(&place(number), login("ada", "wrong"))).await.unwrap_err();
            compared += usize::from(refusal.code() == Code::Unauthenticated);
        }

        // Twice the limit of one address, and then the limit of all other addresses.
        assert_eq!(compared, 2 * 2 + 2);
    }

    async fn a_known_address_is_admitted_when_the_total_is_used_up(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "3").start().await;
        server.member("ada").await;
        server.member("bob").await;
        let mut client = server.client().await;
        log_in_from_home(&server, "ada", PASSWORD).await;
        for name in ["joe", "kim", "lea"] {
            client.login(from("198.51.100.1", login(name, "wrong"))).await.unwrap_err();
        }

        for request in [from("192.0.2.2", login("ada", PASSWORD)), from("192.0.2.1", login("bob", PASSWORD))] {
            let refusal = client.login(request).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
        log_in_from_home(&server, "ada", PASSWORD).await;
    }
}
