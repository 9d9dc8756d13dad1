//! `Register` with an email that already has an account.

use kairos_identity::proto::{ResendVerificationEmailRequest, VerifyEmailRequest};
use tonic::Code;

use super::request_reset;
use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    mail::{newest_mail, wait_for_mails},
    people::{address, registration},
    server::TestServer,
    sessions::age,
};

/// How long an unverified registration holds its email, by default: 24 hours (`verification.token-lifetime`).
const HOLD_SECONDS: u32 = 24 * 60 * 60;

/// Makes all registrations this many seconds older, and leaves everything else as it is.
fn age_registrations(database: &TestDatabase, seconds: u32) {
    age(database, "core_user", "created_at", seconds);
    age(database, "core_user", "updated_at", seconds);
}

on_both_engines! {
    async fn the_owner_is_notified_of_registrations_with_their_email(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let mut other = registration("eve");
        other.email = address("ada");
        for _ in 0..5 {
            let refusal = server.client().await.register(other.clone()).await.unwrap_err();
            assert_refused(&refusal, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        }
        let mail = newest_mail(&server, &address("ada"), 4).await;
        assert!(mail.text.contains("Hello ada,") && mail.text.contains("attempt to sign up"), "{mail:?}");
        // Resets that the owner requests count against a separate limit.
        request_reset(&server, &address("ada")).await;
        let mails = wait_for_mails(&server, &address("ada"), 5).await;
        assert_eq!(mails.len(), 5, "the owner gets three notices for five attempts");
    }

    async fn a_resend_does_not_extend_the_hold_of_a_registration_on_its_email(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let squatter = server.unverified_user("ada").await;
        age_registrations(&database, HOLD_SECONDS - 60);
        let resend = || ResendVerificationEmailRequest { email: address("ada"), return_mail_token: false };
        server.client().await.resend_verification_email(resend()).await.unwrap();
        wait_for_mails(&server, &address("ada"), 2).await;
        let early = server.client().await.register(registration("ada")).await.unwrap_err();
        assert_refused(&early, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");

        age_registrations(&database, 61);
        server.client().await.resend_verification_email(resend()).await.unwrap();
        let link = newest_mail(&server, &address("ada"), 3).await.token();
        let owner = server.client().await.register(registration("ada")).await.unwrap().into_inner().user.unwrap();

        assert_ne!(owner.auth_token, squatter.auth_token);
        let old = server.client().await.verify_email(VerifyEmailRequest { token: link }).await.unwrap_err();
        assert_refused(&old, Code::InvalidArgument, "INVALID_TOKEN");
        let again = server.client().await.register(registration("ada")).await.unwrap_err();
        assert_refused(&again, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
    }

    async fn an_unverified_email_can_be_registered_again_after_24_hours(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let squatter = server.unverified_user("ada").await;
        // The second registration repeats the username too; it must not conflict with the replaced user.
        let owner = registration("ada");
        let early = server.client().await.register(owner.clone()).await.unwrap_err();
        assert_refused(&early, Code::AlreadyExists, "EMAIL_ALREADY_EXISTS");
        let first = newest_mail(&server, &address("ada"), 1).await.token();

        age_registrations(&database, HOLD_SECONDS + 1);
        let registered = server.client().await.register(owner).await.unwrap().into_inner().user.unwrap();

        assert_ne!(registered.auth_token, squatter.auth_token);
        let token = newest_mail(&server, &address("ada"), 2).await.token();
        let old = server.client().await.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&old, Code::InvalidArgument, "INVALID_TOKEN");
        server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        assert_eq!(database.count("core_user"), 1);
        let log = server.logged("abandoned").await;
        assert!(log.lines().any(|line| line.contains("user_deleted") && line.contains(&squatter.auth_token)));
    }
}
