//! `AccountService`: sets a new password with a mailed link.

use std::time::Duration;

use kairos_identity::proto::{RequestPasswordResetRequest, ResetPasswordRequest, VerifyEmailRequest};
use tonic::Code;

use super::{can_log_in, change, client, request_reset, reset};
use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    mail::{mails_to, newest_mail, wait_for_mails},
    people::{NEW_PASSWORD, PASSWORD, address, login},
    server::TestServer,
    sessions::{age, introspect, log_in, refresh},
    tools::{RACING_CALLS, race_rounds},
};

on_both_engines! {
    async fn a_reset_link_sets_a_new_password_once(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        for _ in 0..10 {
            server.client().await.login(login("ada", "wrong")).await.unwrap_err();
        }
        request_reset(&server, "ADA@example.com").await;
        let token = newest_mail(&server, &address("ada"), 2).await.token();
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
        let mail = newest_mail(&server, &address("ada"), 3).await;
        assert!(mail.text.contains("Kairos password was changed"), "{mail:?}");
    }

    async fn only_one_of_64_concurrent_resets_succeeds(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000").start().await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        // The first mail is the verification link. Each round sends a reset link and a notice.
        for round in 0..race_rounds(1) {
            request_reset(&server, &address("ada")).await;
            let token = newest_mail(&server, &address("ada"), 2 * round + 2).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..RACING_CALLS {
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

    async fn a_newer_reset_link_or_a_password_change_voids_older_reset_links(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        request_reset(&server, &address("ada")).await;
        let first = newest_mail(&server, &address("ada"), 2).await.token();
        request_reset(&server, &address("ada")).await;
        let second = newest_mail(&server, &address("ada"), 3).await.token();
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
        let first = newest_mail(&server, &address("ada"), 1).await.token();
        request_reset(&server, &address("ada")).await;
        let token = newest_mail(&server, &address("ada"), 2).await.token();

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
        newest_mail(&server, &address("ada"), 2).await;
        // Each request is processed within a second after its answer.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(mails_to(&server.mail_folder(), "stranger@example.com").is_empty());
        for email in ["stranger@example.com", &address("ada")] {
            let request = || RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
            let mut client = client(&server).await;
            for _ in 0..5 {
                client.request_password_reset(request()).await.unwrap();
            }
        }
        server.logged("LINK_ALREADY_MAILED").await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        // The verification link and three reset links, the default of `verification.resends-max`. A newer
        // link cancels a mail that is not sent yet, so there may be fewer mails than links.
        let mails = mails_to(&server.mail_folder(), &address("ada"));
        assert!(mails.len() <= 1 + 3, "{mails:?}");
        assert!(mails_to(&server.mail_folder(), "stranger@example.com").is_empty());
    }

    async fn a_reset_link_expires_after_20_minutes(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        request_reset(&server, &address("ada")).await;
        let token = newest_mail(&server, &address("ada"), 2).await.token();
        age(&database, "core_mail_token", "expires_at", 20 * 60 - 30);
        // The link is checked before the password, so INVALID_FIELDS shows that it is still valid 30 s before
        // its expiry.
        let still_valid = reset(&server, &token, "short").await.unwrap_err();
        assert_refused(&still_valid, Code::InvalidArgument, "INVALID_FIELDS");

        age(&database, "core_mail_token", "expires_at", 31);
        assert_refused(&reset(&server, &token, NEW_PASSWORD).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
    }
}
