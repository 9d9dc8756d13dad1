//! Mail delivery to a real SMTP server that refuses, delays and drops mails.

mod connection_faults;
mod injection;

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tonic::Code;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    mime::Entity,
    people::{PASSWORD, address, login, registration},
    server::{Builder, TestServer},
    smtp::{SmtpServer, attempts, mailing_to},
    tls::Certificate,
};

fn message_id(attempt: &Value) -> String {
    let data = STANDARD.decode(attempt["data"].as_str().unwrap()).unwrap();
    let mail = Entity::parse(&String::from_utf8(data).unwrap());
    mail.header("message-id").unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_reaches_its_one_recipient() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp.url()).start().await;
    server.client().await.register(registration("ada")).await.unwrap();

    let attempts = attempts(&smtp, 1).await;

    assert_eq!(attempts[0]["recipients"], serde_json::json!([address("ada")]));
    server.logged("Mail sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_or_lost_mail_is_retried_with_the_same_message_id() {
    for mode in ["refuse-4xx", "drop-before-250"] {
        let smtp = SmtpServer::start();
        smtp.set_mode(mode);
        let server = mailing_to(&smtp.url()).start().await;
        server.client().await.register(registration("ada")).await.unwrap();
        attempts(&smtp, 2).await;
        smtp.set_mode("ok");
        server.logged("Mail sent").await;

        let attempts = smtp.log();
        let first = message_id(&attempts[0]);
        assert!(!first.is_empty() && attempts.iter().all(|attempt| message_id(attempt) == first), "{mode}");
        assert_eq!(attempts.last().unwrap()["answer"], "250", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_refused_mail_is_not_retried_and_the_failure_is_logged() {
    for (mode, code) in [("refuse-5xx-rcpt", "550"), ("refuse-5xx-data", "554")] {
        let smtp = SmtpServer::start();
        smtp.set_mode(mode);
        let server = mailing_to(&smtp.url()).start().await;
        server.client().await.register(registration("ada")).await.unwrap();

        server.logged("Mail delivery failed permanently").await;
        smtp.set_mode("ok");
        tokio::time::sleep(Duration::from_secs(1)).await;

        assert_eq!(smtp.log().len(), 1, "{mode}: no second attempt");
        let log = server.log();
        assert!(log.contains(code) && !log.contains(&address("ada")), "{mode}: {log}");
        // The user requests another link when the mailbox works again.
        let resend = kairos_identity::proto::ResendVerificationEmailRequest {
            email: address("ada"),
            return_mail_token: false,
        };
        server.client().await.resend_verification_email(resend).await.unwrap();
        server.logged("Mail sent").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_smtp_server_slows_no_call_and_is_retried() {
    let smtp = SmtpServer::start();
    smtp.set_mode("delay 60");
    let server = mailing_to(&smtp.url()).start().await;
    let began = Instant::now();
    for name in ["ada", "bob", "cyd", "dan", "eve", "fay"] {
        server.client().await.register(registration(name)).await.unwrap();
    }
    let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
    assert_refused(&refusal, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
    // All calls together take less time than the timeout of one delivery attempt.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    server.logged("did not answer within").await;
    smtp.set_mode("ok");
    // The server has logged none of the attempts that timed out, so these are later ones.
    attempts(&smtp, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_to_an_unreachable_server_is_retried_until_its_link_expires() {
    let smtp = SmtpServer::start();
    let url = smtp.url();
    drop(smtp);
    let server = TestServer::builder(Engine::Sqlite)
        .with_mail_url(&url)
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_FIRST", "10ms")
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_MAX", "50ms")
        .with_env("KAIROS_IDENTITY_VERIFICATION_TOKEN_LIFETIME", "2s")
        .start()
        .await;
    server.client().await.register(registration("ada")).await.unwrap();

    server.logged("Mail delivery failed; retrying").await;
    // The retries stop when the link of the mail has expired.
    server.logged("Mail delivery failed permanently").await;
    assert!(server.log().contains("link expire"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_survives_a_crash_before_it_was_sent() {
    let smtp = SmtpServer::start();
    smtp.set_mode("refuse-4xx");
    let mut server = mailing_to(&smtp.url()).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    attempts(&smtp, 1).await;

    server.kill_9();
    smtp.set_mode("ok");
    server.restart().await;

    server.logged("Mail sent").await;
    let attempts = smtp.log();
    assert_eq!(message_id(&attempts[0]), message_id(attempts.last().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_untrusted_certificate_gets_no_mail() {
    let own = Certificate::localhost();
    let smtp = SmtpServer::start_with_tls(&own.certificate(), &own.key());

    let server = mailing_to(&smtp.url()).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail delivery failed; retrying").await;
    assert!(smtp.log().is_empty(), "a mail was delivered: {:?}", smtp.log());
    drop(server);

    let trusted = own.certificate();
    let server = mailing_to(&smtp.url()).with_env("SSL_CERT_FILE", trusted.to_str().unwrap()).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_loopback_gets_no_plaintext_mail_without_the_flag() {
    let smtp = SmtpServer::start();
    let remote = smtp.non_loopback_url();

    let server = mailing_to(&remote).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail delivery failed; retrying").await;
    assert!(smtp.log().is_empty(), "a mail was delivered: {:?}", smtp.log());
    drop(server);

    let allowed = mailing_to(&remote).with_args(&["--insecure-mail-plaintext"]).start().await;
    allowed.client().await.register(registration("ada")).await.unwrap();
    allowed.logged("Mail sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_another_key_loses_no_mail() {
    let smtp = SmtpServer::start();
    smtp.set_mode("refuse-4xx");
    let database = TestDatabase::new(Engine::Sqlite);
    let mailing = |builder: Builder| {
        // The lease of a mail whose sender was killed lasts twice the timeout.
        builder
            .with_mail_url(&smtp.url())
            .with_env("KAIROS_IDENTITY_MAIL_RETRY_FIRST", "200ms")
            .with_env("KAIROS_IDENTITY_MAIL_TIMEOUT", "500ms")
    };
    // Each new `TestServer` has a secret key of its own, and `restart` keeps it.
    let mut right = mailing(TestServer::on_url(database.url().to_owned())).start().await;
    right.client().await.register(registration("ada")).await.unwrap();
    attempts(&smtp, 1).await;
    right.kill_9();
    smtp.set_mode("ok");

    // With signing keys that it cannot decrypt, the instance would not start. Without any, it creates its
    // own.
    database.execute("DELETE FROM core_signing_key");
    let wrong = mailing(TestServer::on_url(database.url().to_owned())).start().await;
    wrong.logged("encrypted under another key").await;
    drop(wrong);
    database.execute("DELETE FROM core_signing_key");
    right.restart().await;

    right.logged("Mail sent").await;
}
