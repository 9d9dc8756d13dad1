//! `AccountService`: reads, changes and deletes an account.

mod email_change_links;
mod password_reset_links;
mod taken_emails;

use std::time::Duration;

use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, DeleteAccountRequest, GetAccountRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, ResetPasswordRequest, SessionTokens,
    UpdateAccountRequest, VerifyEmailRequest, account_service_client::AccountServiceClient,
};
use prost_types::FieldMask;
use tonic::{Code, Request, Status, transport::Channel};

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    mail::newest_mail,
    people::{NEW_PASSWORD, PASSWORD, address, login},
    server::TestServer,
    sessions::{acting, introspect, log_in, refresh},
    wait::until,
};

async fn client(server: &TestServer) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(server.channel().await)
}

async fn can_log_in(server: &TestServer, name: &str, password: &str) -> bool {
    match server.client().await.login(login(name, password)).await {
        Ok(_) => true,
        Err(refusal) => {
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_CREDENTIALS");
            false
        }
    }
}

fn change(tokens: &SessionTokens, current: &str, new: &str) -> Request<ChangePasswordRequest> {
    acting(tokens, ChangePasswordRequest { current_password: current.into(), new_password: new.into() })
}

fn email_change(
    tokens: &SessionTokens,
    current: &str,
    new_email: &str,
) -> Request<RequestEmailChangeRequest> {
    acting(
        tokens,
        RequestEmailChangeRequest {
            current_password: current.into(),
            new_email: new_email.into(),
            return_mail_token: false,
        },
    )
}

async fn request_reset(server: &TestServer, email: &str) {
    let request = RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
    client(server).await.request_password_reset(request).await.unwrap();
}

async fn reset(server: &TestServer, token: &str, new_password: &str) -> Result<(), Status> {
    let request = ResetPasswordRequest { token: token.to_owned(), new_password: new_password.to_owned() };
    client(server).await.reset_password(request).await.map(drop)
}

async fn confirm(server: &TestServer, token: &str) -> Result<String, Status> {
    let request = ConfirmEmailChangeRequest { token: token.to_owned() };
    let confirmed = client(server).await.confirm_email_change(request).await?;
    Ok(confirmed.into_inner().user.unwrap().auth_token)
}

on_both_engines! {
    async fn get_account_returns_the_user_of_the_access_token(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let account = client(&server).await.get_account(acting(&tokens, GetAccountRequest {})).await.unwrap();
        assert_eq!(account.into_inner().user, Some(ada));
    }

    async fn a_username_change_is_checked_and_notified_and_keeps_the_session(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        let update = |username: &str, paths: Option<&[&str]>| {
            let update_mask = paths.map(|paths| FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
            acting(&tokens, UpdateAccountRequest { username: username.into(), update_mask })
        };
        let mut client = client(&server).await;

        let updated = client.update_account(update("Ada Lovelace", Some(&["username"]))).await.unwrap().into_inner();
        let user = updated.user.unwrap();
        assert_eq!((user.username.as_str(), &user.auth_token), ("Ada Lovelace", &ada.auth_token));
        let mail = newest_mail(&server, &address("ada"), 2).await;
        assert!(mail.text.contains("Hello Ada Lovelace,") && mail.text.contains("Kairos username was changed"), "{mail:?}");
        let again = client.update_account(update("ada lovelace", None)).await.unwrap().into_inner().user.unwrap();
        assert_eq!(again.username, "ada lovelace");

        let taken = client.update_account(update("BOB", None)).await.unwrap_err();
        assert_refused(&taken, Code::AlreadyExists, "USERNAME_ALREADY_EXISTS");
        for (faulty, field) in [
            (update("", None), "username"),
            (update("a@b", None), "username"),
            (update("ok", Some(&["email"])), "update_mask"),
            (update("ok", Some(&["username", "auth_token"])), "update_mask"),
        ] {
            let refusal = client.update_account(faulty).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, field);
        }
        assert!(introspect(&server, &tokens.access_token).await.active, "a username change does not revoke the session");
    }

    async fn changing_the_password_requires_the_current_one(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let (tokens, other) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        let mut client = client(&server).await;

        let wrong = client.change_password(change(&tokens, "wrong", NEW_PASSWORD)).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        let weak = client.change_password(change(&tokens, PASSWORD, "ada12345")).await.unwrap_err();
        assert_eq!(violations(&weak)[0].0, "new_password");
        assert!(can_log_in(&server, "ada", PASSWORD).await);

        client.change_password(change(&tokens, PASSWORD, NEW_PASSWORD)).await.unwrap();

        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await);
        assert!(introspect(&server, &tokens.access_token).await.active, "the session that changed the password stays active");
        assert!(!introspect(&server, &other.access_token).await.active);
        refresh(&server, &other.refresh_token).await.unwrap_err();
        refresh(&server, &tokens.refresh_token).await.unwrap();
        let mail = newest_mail(&server, &address("ada"), 2).await;
        assert!(mail.text.contains("Kairos password was changed"), "{mail:?}");
    }

    async fn wrong_current_passwords_count_against_the_login_limit(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        for _ in 0..3 {
            client.change_password(change(&tokens, "wrong", NEW_PASSWORD)).await.unwrap_err();
            client.request_email_change(email_change(&tokens, "wrong", "new@example.com")).await.unwrap_err();
            let deletion = DeleteAccountRequest { current_password: "wrong".into() };
            client.delete_account(acting(&tokens, deletion)).await.unwrap_err();
        }
        // With this one there are ten failures: the default of `login.failures-max`.
        client.change_password(change(&tokens, "wrong", NEW_PASSWORD)).await.unwrap_err();

        let refusal = client.change_password(change(&tokens, PASSWORD, NEW_PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }

    async fn failed_logins_of_strangers_do_not_refuse_the_current_password_of_the_user(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        for _ in 0..10 {
            assert!(!can_log_in(&server, "ada", "wrong").await);
        }
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");

        let mut client = client(&server).await;
        client.request_email_change(email_change(&tokens, PASSWORD, "new@example.com")).await.unwrap();
        client.change_password(change(&tokens, PASSWORD, NEW_PASSWORD)).await.unwrap();
        let deletion = DeleteAccountRequest { current_password: NEW_PASSWORD.into() };
        client.delete_account(acting(&tokens, deletion)).await.unwrap();
    }

    async fn deleting_the_account_requires_the_current_password(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let delete = |password: &str| acting(&tokens, DeleteAccountRequest { current_password: password.to_owned() });
        let mut client = client(&server).await;
        let wrong = client.delete_account(delete("wrong")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");

        client.delete_account(delete(PASSWORD)).await.unwrap();

        for table in ["core_user", "core_session", "core_mail_token"] {
            assert_eq!(database.count(table), 0, "{table}");
        }
        until("the notice of the deletion is mailed and its row deleted", Duration::from_secs(15), async || {
            (database.count("core_mail_outbox") == 0).then_some(())
        })
        .await;
        let gone = client.delete_account(delete(PASSWORD)).await.unwrap_err();
        assert_refused(&gone, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
    }

    async fn a_mailed_token_works_only_for_its_purpose(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.unverified_user("bob").await;
        let verify = newest_mail(&server, &address("bob"), 1).await.token();
        request_reset(&server, &address("ada")).await;
        let reset_token = newest_mail(&server, &address("ada"), 2).await.token();
        let tokens = log_in(&server, "ada").await;
        client(&server).await.request_email_change(email_change(&tokens, PASSWORD, "new@example.com")).await.unwrap();
        let change = newest_mail(&server, "new@example.com", 1).await.token();

        for (name, token) in [("verify", &verify), ("reset", &reset_token), ("change", &change)] {
            if name != "verify" {
                let other = server.client().await.verify_email(VerifyEmailRequest { token: token.clone() }).await;
                assert_refused(&other.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            if name != "reset" {
                assert_refused(&reset(&server, token, NEW_PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            if name != "change" {
                assert_refused(&confirm(&server, token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            }
            refresh(&server, token).await.unwrap_err();
            assert!(!introspect(&server, token).await.active);
        }
        for other in [&tokens.access_token, &tokens.refresh_token, &tokens.session_id, &ada.auth_token] {
            assert_refused(&reset(&server, other, NEW_PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
            assert_refused(&confirm(&server, other).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        }
        // After the refused attempts each token still works for its own purpose.
        server.client().await.verify_email(VerifyEmailRequest { token: verify }).await.unwrap();
        reset(&server, &reset_token, NEW_PASSWORD).await.unwrap();
        // The reset voids the email change link: an attacker with the old password may have requested it.
        assert_refused(&confirm(&server, &change).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn a_correct_password_never_counts_as_a_failure(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        for _ in 0..12 {
            let taken = client.request_email_change(email_change(&tokens, PASSWORD, &address("bob"))).await.unwrap_err();
            assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        assert!(can_log_in(&server, "ada", PASSWORD).await);
    }
}
