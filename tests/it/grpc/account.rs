//! `AccountService`: reads, changes and deletes an account, and resets a password.

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
    mail::{Mail, mails_to, wait_for_mails},
    people::{PASSWORD, address, by_email, login, registration},
    server::TestServer,
    sessions::{acting, age, introspect, log_in, refresh},
    tools::race_rounds,
};

const NEW_PASSWORD: &str = "quartz-Lantern-57-meadow";

async fn client(server: &TestServer) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(server.channel().await)
}

/// Waits until at least `count` mails to this address have arrived, and returns the newest.
async fn newest(server: &TestServer, email: &str, count: usize) -> Mail {
    wait_for_mails(server, email, count).await.pop().unwrap()
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

    async fn a_username_change_is_notified_by_mail(engine: Engine) {
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
        let mail = newest(&server, &address("ada"), 2).await;
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
        let mail = newest(&server, &address("ada"), 2).await;
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
        assert!(!can_log_in(&server, "ada", "wrong").await);

        let refusal = client.change_password(change(&tokens, PASSWORD, NEW_PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    }

    async fn a_reset_link_sets_a_new_password_once(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        for _ in 0..10 {
            server.client().await.login(login("ada", "wrong")).await.unwrap_err();
        }
        request_reset(&server, "ADA@example.com").await;
        let token = newest(&server, &address("ada"), 2).await.token();
        assert!(introspect(&server, &tokens.access_token).await.active, "requesting a reset does not revoke sessions");

        let weak = reset(&server, &token, "ada12345").await.unwrap_err();
        assert_eq!(violations(&weak)[0].0, "new_password");
        reset(&server, &token, NEW_PASSWORD).await.unwrap();

        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await, "a reset ends the wait after failed logins");
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(!introspect(&server, &tokens.access_token).await.active);
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
        let again = reset(&server, &token, PASSWORD).await.unwrap_err();
        assert_refused(&again, Code::InvalidArgument, "INVALID_TOKEN");
        let mail = newest(&server, &address("ada"), 3).await;
        assert!(mail.text.contains("Kairos password was changed"), "{mail:?}");
    }

    async fn only_one_of_64_concurrent_resets_succeeds(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000").start().await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        for round in 0..race_rounds(1) {
            request_reset(&server, &address("ada")).await;
            let token = newest(&server, &address("ada"), 2 * round + 2).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = client(if number % 2 == 0 { &server } else { &second_instance }).await;
                let new_password = format!("{NEW_PASSWORD}-{round}-{number}");
                let request = ResetPasswordRequest { token: token.clone(), new_password: new_password.clone() };
                calls.spawn(async move { client.reset_password(request).await.map(|_| new_password) });
            }
            let succeeded: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::ok).collect();
            assert_eq!(succeeded.len(), 1);
            assert!(can_log_in(&server, "ada", &succeeded[0]).await);
            wait_for_mails(&server, &address("ada"), 2 * round + 3).await;
        }
    }

    async fn only_one_of_64_concurrent_email_confirmations_succeeds(engine: Engine) {
        let server = TestServer::start(engine).await;
        let second_instance = server.second_instance().await;
        let ada = server.member("ada").await;
        let mut name = "ada".to_owned();
        for round in 0..race_rounds(1) {
            let tokens = log_in(&server, &name).await;
            name = format!("ada{round}");
            let new = address(&name);
            let mut accounts = client(&server).await;
            accounts.request_email_change(email_change(&tokens, PASSWORD, &new)).await.unwrap();
            let token = newest(&server, &new, 1).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = client(if number % 2 == 0 { &server } else { &second_instance }).await;
                let request = ConfirmEmailChangeRequest { token: token.clone() };
                calls.spawn(async move { client.confirm_email_change(request).await });
            }
            let answers = calls.join_all().await;
            let succeeded: Vec<_> = answers.iter().flatten().collect();
            assert_eq!(succeeded.len(), 1);
            for refusal in answers.into_iter().filter_map(Result::err) {
                assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
            }
            let found = server.client().await.find_user(by_email(&new)).await.unwrap().into_inner().user.unwrap();
            assert_eq!(found.auth_token, ada.auth_token);
        }
    }

    async fn a_newer_reset_link_or_a_password_change_voids_older_reset_links(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        request_reset(&server, &address("ada")).await;
        let first = newest(&server, &address("ada"), 2).await.token();
        request_reset(&server, &address("ada")).await;
        let second = newest(&server, &address("ada"), 3).await.token();
        assert_refused(&reset(&server, &first, NEW_PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");

        let tokens = log_in(&server, "ada").await;
        client(&server).await.change_password(change(&tokens, PASSWORD, NEW_PASSWORD)).await.unwrap();
        assert_refused(&reset(&server, &second, PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await);
    }

    async fn a_password_reset_verifies_an_unverified_email(engine: Engine) {
        let server = TestServer::start(engine).await;
        // An attacker may have registered this email and chosen the password; the reset lets the owner
        // replace it.
        server.unverified_user("ada").await;
        let first = newest(&server, &address("ada"), 1).await.token();
        request_reset(&server, &address("ada")).await;
        let token = newest(&server, &address("ada"), 2).await.token();

        reset(&server, &token, NEW_PASSWORD).await.unwrap();

        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await);
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        let late = server.client().await.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&late, Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn a_reset_for_an_unknown_email_sends_no_mail_and_answers_the_same(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        request_reset(&server, "stranger@example.com").await;
        request_reset(&server, &address("ada")).await;
        newest(&server, &address("ada"), 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(mails_to(&server.mail_folder(), "stranger@example.com").is_empty());
        for email in ["stranger@example.com", &address("ada")] {
            let request = || RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
            let mut client = client(&server).await;
            for _ in 0..2 {
                client.request_password_reset(request()).await.unwrap();
            }
            let refusal = client.request_password_reset(request()).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
        }
    }

    async fn an_email_change_is_confirmed_at_the_new_address_and_notified_to_the_old(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        let wrong = client.request_email_change(email_change(&tokens, "wrong", "lovelace@example.com")).await.unwrap_err();
        assert_refused(&wrong, Code::Unauthenticated, "INVALID_CREDENTIALS");
        let same = client.request_email_change(email_change(&tokens, PASSWORD, "ADA@example.com")).await.unwrap_err();
        assert_eq!(violations(&same)[0].0, "new_email");

        client.request_email_change(email_change(&tokens, PASSWORD, "Lovelace@Example.com")).await.unwrap();
        let token = newest(&server, "lovelace@example.com", 1).await.token();
        let notice = newest(&server, &address("ada"), 2).await;
        assert!(notice.text.contains("A change of the email address") && !notice.text.contains("token="), "{notice:?}");
        assert!(can_log_in(&server, "ada", PASSWORD).await, "nothing changes before the link is confirmed");

        assert_eq!(confirm(&server, &token).await.unwrap(), ada.auth_token);

        assert!(can_log_in(&server, "lovelace", PASSWORD).await);
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let notice = newest(&server, &address("ada"), 3).await;
        assert!(notice.text.contains("no longer belongs"), "{notice:?}");
        assert_refused(&confirm(&server, &token).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        // The old email can be registered again.
        server.client().await.register(registration("ada2")).await.unwrap();
    }

    async fn an_email_that_another_user_verified_cannot_be_taken(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        server.unverified_user("eve").await;
        let tokens = log_in(&server, "ada").await;
        let mut client = client(&server).await;
        let taken = client.request_email_change(email_change(&tokens, PASSWORD, &address("bob"))).await.unwrap_err();
        assert_refused(&taken, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // Another user registers and verifies the email while the link is pending.
        client.request_email_change(email_change(&tokens, PASSWORD, &address("joe"))).await.unwrap();
        let link = newest(&server, &address("joe"), 1).await.token();
        server.unverified_user("joe").await;
        let verification = newest(&server, &address("joe"), 2).await.token();
        server.client().await.verify_email(VerifyEmailRequest { token: verification }).await.unwrap();
        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // A user who registered with the email and never verified it is deleted when the change is confirmed.
        client.request_email_change(email_change(&tokens, PASSWORD, &address("eve"))).await.unwrap();
        let link = newest(&server, &address("eve"), 2).await.token();
        confirm(&server, &link).await.unwrap();
        let found = server.client().await.find_user(by_email(&address("eve"))).await.unwrap().into_inner().user.unwrap();
        assert_eq!(found.username, "ada");
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

        for table in ["core_user", "core_session", "core_mail_token", "core_mail_outbox"] {
            assert_eq!(database.count(table), 0, "{table}");
        }
        let gone = client.delete_account(delete(PASSWORD)).await.unwrap_err();
        assert_refused(&gone, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        refresh(&server, &tokens.refresh_token).await.unwrap_err();
    }

    async fn a_mailed_token_works_only_for_its_purpose(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        server.unverified_user("bob").await;
        let verify = newest(&server, &address("bob"), 1).await.token();
        request_reset(&server, &address("ada")).await;
        let reset_token = newest(&server, &address("ada"), 2).await.token();
        let tokens = log_in(&server, "ada").await;
        client(&server).await.request_email_change(email_change(&tokens, PASSWORD, "new@example.com")).await.unwrap();
        let change = newest(&server, "new@example.com", 1).await.token();

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

    async fn a_password_change_voids_pending_email_change_links(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let (attacker, ada) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        client(&server).await.request_email_change(email_change(&attacker, PASSWORD, "attacker@example.com")).await.unwrap();
        let link = newest(&server, "attacker@example.com", 1).await.token();

        client(&server).await.change_password(change(&ada, PASSWORD, NEW_PASSWORD)).await.unwrap();

        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await);
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

    async fn a_reset_link_expires_after_20_minutes(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        request_reset(&server, &address("ada")).await;
        let token = newest(&server, &address("ada"), 2).await.token();
        age(&database, "core_mail_token", "expires_at", 20 * 60 - 30);
        let weak = reset(&server, &token, "short").await.unwrap_err();
        assert_refused(&weak, Code::InvalidArgument, "INVALID_FIELDS");
        age(&database, "core_mail_token", "expires_at", 31);
        assert_refused(&reset(&server, &token, NEW_PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn the_owner_is_notified_of_registrations_with_their_email(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let mut other = registration("eve");
        other.email = address("ada");
        for _ in 0..5 {
            let refusal = server.client().await.register(other.clone()).await.unwrap_err();
            assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        let mail = newest(&server, &address("ada"), 4).await;
        assert!(mail.text.contains("Hello ada,") && mail.text.contains("attempt to sign up"), "{mail:?}");
        // Resets that the owner requests count against a separate limit.
        request_reset(&server, &address("ada")).await;
        let mails = wait_for_mails(&server, &address("ada"), 5).await;
        assert_eq!(mails.len(), 5, "the owner gets three notices for five attempts");
    }

    async fn an_email_can_be_registered_again_after_its_link_expired_unused(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let squatter = server.unverified_user("ada").await;
        // With the same username too, like a user who lost the first mail and registers again.
        let owner = registration("ada");
        let early = server.client().await.register(owner.clone()).await.unwrap_err();
        assert_refused(&early, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let first = newest(&server, &address("ada"), 1).await.token();

        age(&database, "core_mail_token", "expires_at", 86_401);
        let registered = server.client().await.register(owner).await.unwrap().into_inner().user.unwrap();

        assert_ne!(registered.auth_token, squatter.auth_token);
        let token = newest(&server, &address("ada"), 2).await.token();
        let old = server.client().await.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&old, Code::InvalidArgument, "INVALID_TOKEN");
        server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        assert_eq!(database.count("core_user"), 1);
        let log = server.logged("abandoned").await;
        assert!(log.lines().any(|line| line.contains("user_deleted") && line.contains(&squatter.auth_token)));
    }
}
