//! `VerifyEmail`.

use kairos_identity::proto::VerifyEmailRequest;
use tonic::Code;

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    mail::verification_token,
    people::address,
    server::TestServer,
    sessions::age,
};

fn verify(token: &str) -> VerifyEmailRequest {
    VerifyEmailRequest { token: token.to_owned() }
}

on_both_engines! {
    async fn a_mailed_link_verifies_its_user_once(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let token = verification_token(&server, &address("ada")).await;
        let mut client = server.client().await;

        let verified = client.verify_email(verify(&token)).await.unwrap().into_inner().user.unwrap();
        let again = client.verify_email(verify(&token)).await.unwrap_err();

        assert!(verified.is_verified && verified.auth_token == ada.auth_token);
        assert_refused(&again, Code::FailedPrecondition, "EMAIL_ALREADY_VERIFIED");
    }

    async fn an_expired_link_is_refused(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.unverified_user("ada").await;
        let token = verification_token(&server, &address("ada")).await;
        // The default of `verification.token-lifetime` is 24 hours.
        age(&database, "core_mail_token", "expires_at", 24 * 60 * 60);

        let refusal = server.client().await.verify_email(verify(&token)).await.unwrap_err();

        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
    }

    async fn a_token_that_was_never_mailed_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let token = verification_token(&server, &address("ada")).await;
        let mut client = server.client().await;
        for wrong in [&"A".repeat(43), &token[..42], &format!("{token}A"), "x", "' OR 1=1 --", &"x".repeat(10_000)] {
            let refusal = client.verify_email(verify(wrong)).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        }

        let empty = client.verify_email(verify("")).await.unwrap_err();
        assert_refused(&empty, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(violations(&empty)[0].0, "token");
        client.verify_email(verify(&token)).await.unwrap();
    }

    async fn an_auth_token_does_not_verify_an_email_and_is_counted_in_the_log(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let mut client = server.client().await;
        for old_link in [ada.auth_token.clone(), ada.auth_token.replace('-', "").to_uppercase()] {
            let refusal = client.verify_email(verify(&old_link)).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        }

        // The line of a refused auth token counts those since the start.
        let log = server.logged("\"count\":2").await;
        // Only audit events contain the auth token of a user.
        let lines = log.lines().filter(|line| line.contains(&ada.auth_token));
        assert!(lines.into_iter().all(|line| line.contains("\"target\":\"audit\"")));
    }
}
