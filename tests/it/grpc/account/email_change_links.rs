//! `AccountService`: changes the email with a link that is mailed to the new address.

use std::collections::BTreeSet;

use kairos_identity::proto::{ConfirmEmailChangeRequest, VerifyEmailRequest};
use tonic::Code;
use tonic_types::StatusExt;

use super::{can_log_in, change, client, confirm, email_change};
use crate::support::{
    errors::{assert_refused, violations},
    mail::newest_mail,
    people::{NEW_PASSWORD, PASSWORD, address, by_email, registration},
    server::TestServer,
    sessions::{introspect, log_in},
    tools::{RACING_CALLS, race_rounds},
};

on_both_engines! {
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
            let token = newest_mail(&server, &new, 1).await.token();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..RACING_CALLS {
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

    async fn a_user_who_asks_for_taken_emails_is_soon_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = client(&server).await;
        for name in ["ada", "eve"] {
            server.member(name).await;
        }
        let tokens = log_in(&server, "ada").await;
        for _ in 0..20 {
            let taken = email_change(&tokens, PASSWORD, &address("eve"));
            let refusal = client.request_email_change(taken).await.unwrap_err();
            assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        // Beyond the limits, the wait does not tell a taken email from a free one.
        for number in 0..3 {
            let free = email_change(&tokens, PASSWORD, &address(&format!("free{number}")));
            client.request_email_change(free).await.unwrap();
        }
        let mut waits = BTreeSet::new();
        for name in ["eve", "free"] {
            let refusal = client.request_email_change(email_change(&tokens, PASSWORD, &address(name))).await.unwrap_err();
            assert_refused(&refusal, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
            waits.insert(refusal.get_error_details().retry_info().unwrap().retry_delay);
        }
        assert_eq!(waits.len(), 1, "{waits:?}");
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
        let token = newest_mail(&server, "lovelace@example.com", 1).await.token();
        let notice = newest_mail(&server, &address("ada"), 2).await;
        assert!(notice.text.contains("A change of the email address") && !notice.text.contains("token="), "{notice:?}");
        assert!(can_log_in(&server, "ada", PASSWORD).await, "nothing changes before the link is confirmed");

        assert_eq!(confirm(&server, &token).await.unwrap(), ada.auth_token);

        assert!(can_log_in(&server, "lovelace", PASSWORD).await);
        assert!(!can_log_in(&server, "ada", PASSWORD).await);
        assert!(!introspect(&server, &tokens.access_token).await.active);
        let notice = newest_mail(&server, &address("ada"), 3).await;
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
        let link = newest_mail(&server, &address("joe"), 1).await.token();
        server.unverified_user("joe").await;
        let verification = newest_mail(&server, &address("joe"), 2).await.token();
        server.client().await.verify_email(VerifyEmailRequest { token: verification }).await.unwrap();
        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        // A user who registered with the email and never verified it is deleted when the change is confirmed.
        client.request_email_change(email_change(&tokens, PASSWORD, &address("eve"))).await.unwrap();
        let link = newest_mail(&server, &address("eve"), 2).await.token();
        confirm(&server, &link).await.unwrap();
        let found = server.client().await.find_user(by_email(&address("eve"))).await.unwrap().into_inner().user.unwrap();
        assert_eq!(found.username, "ada");
    }

    async fn a_password_change_voids_pending_email_change_links(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let (attacker, ada) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        client(&server).await.request_email_change(email_change(&attacker, PASSWORD, "attacker@example.com")).await.unwrap();
        let link = newest_mail(&server, "attacker@example.com", 1).await.token();

        client(&server).await.change_password(change(&ada, PASSWORD, NEW_PASSWORD)).await.unwrap();

        assert_refused(&confirm(&server, &link).await.unwrap_err(), Code::InvalidArgument, "INVALID_TOKEN");
        assert!(can_log_in(&server, "ada", NEW_PASSWORD).await);
    }
}
