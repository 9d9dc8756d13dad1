//! `ResendVerificationEmail`.

use kairos_identity::proto::{ResendVerificationEmailRequest, VerifyEmailRequest};
use tonic::Code;

use crate::support::{
    errors::{assert_refused, violations},
    mail::{Mail, mails_to, wait_for_mails},
    people::address,
    server::TestServer,
};

fn resend(email: &str) -> ResendVerificationEmailRequest {
    ResendVerificationEmailRequest { email: email.to_owned(), return_mail_token: false }
}

on_both_engines! {
    async fn a_new_link_replaces_the_old_one(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let first = wait_for_mails(&server, &address("ada"), 1).await[0].token();
        let mut client = server.client().await;

        client.resend_verification_email(resend("ADA@example.com")).await.unwrap();

        let mails = wait_for_mails(&server, &address("ada"), 2).await;
        let second = mails.iter().map(Mail::token).find(|token| *token != first).expect("the new link has another token");
        let refusal = client.verify_email(VerifyEmailRequest { token: first }).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_TOKEN");
        client.verify_email(VerifyEmailRequest { token: second }).await.unwrap();
    }

    async fn every_email_gets_the_same_answer_and_only_an_unverified_one_gets_a_mail(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("verified").await;
        server.unverified_user("unverified").await;
        let mut client = server.client().await;

        let mut answers = Vec::new();
        for name in ["unknown", "verified", "unverified"] {
            let answer = client.resend_verification_email(resend(&address(name))).await.unwrap();
            let mut metadata = answer.metadata().clone().into_headers();
            for changing in ["date", "kairos-request-id"] {
                metadata.remove(changing);
            }
            answers.push((metadata, answer.into_inner()));
        }

        assert!(answers[0] == answers[1] && answers[1] == answers[2], "{answers:?}");
        wait_for_mails(&server, &address("unverified"), 2).await;
        let folder = server.mail_folder();
        assert_eq!(mails_to(&folder, &address("verified")).len(), 1);
        assert!(mails_to(&folder, &address("unknown")).is_empty());
    }

    async fn resends_to_one_email_are_limited(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.unverified_user("ada").await;
        let mut client = server.client().await;

        // All spellings of an email share one limit. Beyond it the answer is the same, also for an unknown
        // email.
        for name in ["ada", "unknown"] {
            for (sent, email) in [address(name), address(name).to_uppercase(), address(name)].iter().enumerate() {
                client.resend_verification_email(resend(email)).await.unwrap();
                if name == "ada" {
                    // The next resend would void a mail that is not sent yet.
                    wait_for_mails(&server, &address("ada"), sent + 2).await;
                }
            }
            for _ in 0..3 {
                client.resend_verification_email(resend(&address(name))).await.unwrap();
            }
        }
        // Requests are processed within a second.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        server.logged("LINK_ALREADY_MAILED").await;
        assert_eq!(mails_to(&server.mail_folder(), &address("ada")).len(), 4);
    }

    async fn an_invalid_email_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        for wrong in ["", "ada", "ada@example.com\r\nBcc: x@example.com"] {
            let refusal = server.client().await.resend_verification_email(resend(wrong)).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, "email");
        }
    }
}
