//! Replies of an SMTP server that concern the service, the relay or the recipient, times that a wrong clock
//! has set, and addresses beyond ASCII.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::proto::RegisterRequest;
use serde_json::Value;

use crate::support::{
    engine::{Engine, TestDatabase},
    people::registration,
    server::TestServer,
    smtp::{SmtpServer, attempts, mailing_to, with_short_pauses},
};

/// Returns the mail of an attempt.
fn data(attempt: &Value) -> String {
    String::from_utf8(STANDARD.decode(attempt["data"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_concerns_the_service_is_retried_until_the_server_accepts() {
    for reply in [
        "GREETING 554 5.7.1 your address is blocked",
        "EHLO 550 5.7.1 bad EHLO name",
        "AUTH 535 5.7.8 bad credentials",
        "AUTH 550 5.7.1 account suspended",
        "MAIL 553 5.1.8 sender rejected",
        "MAIL 550 sender rejected",
        "RCPT 554 5.7.1 Relay access denied",
        "RCPT 550 5.7.1 relaying denied",
        "RCPT 553 5.1.7 bad sender",
        "RCPT 503 5.5.1 bad sequence",
        "DATA 550 5.7.1 blocked by policy",
        "DATA 554 5.3.0 system error",
    ] {
        let smtp = SmtpServer::start();
        smtp.set_mode(&format!("refuse-at {reply}"));
        let server = mailing_to(&smtp.url_with_credentials()).start().await;
        server.client().await.register(registration("ada")).await.unwrap();

        attempts(&smtp, 2).await;
        smtp.set_mode("ok");

        let log = server.logged("Mail sent").await;
        assert!(!log.contains("failed permanently"), "{reply}: {log}");
        assert!(log.contains("concerns this service"), "{reply}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_concerns_the_recipient_or_the_content_ends_the_delivery() {
    for reply in [
        "RCPT 550 5.1.1 no such user",
        "RCPT 550 No such user",
        "RCPT 556 5.1.10 null MX",
        "RCPT 552 5.2.2 mailbox full",
        "DATA 554 5.6.0 rejected",
        "DATA 552 5.3.4 too large",
    ] {
        let smtp = SmtpServer::start();
        smtp.set_mode(&format!("refuse-at {reply}"));
        let server = mailing_to(&smtp.url()).start().await;
        server.client().await.register(registration("ada")).await.unwrap();

        let log = server.logged("Mail delivery failed permanently").await;
        assert!(log.contains(reply.split(' ').nth(1).unwrap()), "{reply}: {log}");
        assert!(!log.contains("retrying"), "{reply}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ehlo_takes_the_setting_or_else_the_host_of_the_sender() {
    let smtp = SmtpServer::start();
    let from = "Kairos <no-reply@mail.kairos.example>";
    for (hello_name, expected) in [
        ("", "mail.kairos.example"),
        ("id.kairos.example", "id.kairos.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ] {
        let before = smtp.log().len();
        let server = mailing_to(&smtp.url())
            .with_env("KAIROS_IDENTITY_MAIL_FROM", from)
            .with_env("KAIROS_IDENTITY_MAIL_HELLO_NAME", hello_name)
            .start()
            .await;
        server.client().await.register(registration("ada")).await.unwrap();

        let attempts = attempts(&smtp, before + 1).await;

        assert_eq!(attempts.last().unwrap()["hello"], expected);
    }
}

/// Emails that `Register` accepts and that need SMTPUTF8.
const BEYOND_ASCII: [&str; 4] =
    ["राष्ट्र@example.com", "İpek@example.com", "josé@example.com", "用户@例子.example"];

#[tokio::test(flavor = "multi_thread")]
async fn addresses_beyond_ascii_get_their_mail_over_smtputf8() {
    let smtp = SmtpServer::start_with_utf8();
    let server = mailing_to(&smtp.url()).start().await;
    let mut emails = Vec::new();
    for (number, email) in BEYOND_ASCII.into_iter().enumerate() {
        let request = RegisterRequest { email: email.into(), ..registration(&format!("ada{number}")) };
        let answer = server.client().await.register(request).await.unwrap();
        emails.push(answer.into_inner().user.unwrap().email);
    }

    let attempts = attempts(&smtp, emails.len()).await;

    let mut recipients: Vec<String> =
        attempts.iter().map(|attempt| attempt["recipients"][0].as_str().unwrap().to_owned()).collect();
    for attempt in &attempts {
        let recipient = attempt["recipients"][0].as_str().unwrap();
        assert!(data(attempt).contains(&format!("To: {recipient}\r\n")), "{recipient}: {}", data(attempt));
    }
    recipients.sort();
    emails.sort();
    assert_eq!(recipients, emails);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_smtputf8_is_named_in_the_log_and_the_mail_waits() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp.url()).start().await;
    let request = RegisterRequest { email: "josé@example.com".into(), ..registration("ada") };
    server.client().await.register(request).await.unwrap();

    let log = server.logged("does not support SMTPUTF8").await;

    assert!(log.contains("retrying") && !log.contains("failed permanently"), "{log}");
    assert!(smtp.log().is_empty(), "no command named the address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_name_with_a_comma_keeps_its_quotes() {
    for from in ["\"Kairos, Inc.\" <no-reply@kairos.example>", "Kairos, Inc. <no-reply@kairos.example>"] {
        let smtp = SmtpServer::start();
        let server = mailing_to(&smtp.url()).with_env("KAIROS_IDENTITY_MAIL_FROM", from).start().await;
        server.client().await.register(registration("ada")).await.unwrap();

        let mail = data(&attempts(&smtp, 1).await[0]);

        assert!(mail.contains("From: \"Kairos, Inc.\" <no-reply@kairos.example>\r\n"), "{mail}");
    }
}

on_both_engines! {
    async fn a_clock_that_was_ahead_for_a_moment_delays_no_mail(engine: Engine) {
        let smtp = SmtpServer::start();
        smtp.set_mode("refuse-4xx");
        let database = TestDatabase::new(engine);
        let builder = with_short_pauses(TestServer::on_url(database.url().to_owned()));
        let mut server = builder.with_mail_url(&smtp.url()).start().await;
        server.client().await.register(registration("ada")).await.unwrap();
        attempts(&smtp, 1).await;
        server.kill_9();
        // As a clock that was a day ahead schedules the next attempt.
        database.execute(match engine {
            Engine::Sqlite => "UPDATE core_mail_outbox SET next_attempt_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 day')",
            Engine::Postgres => "UPDATE core_mail_outbox SET next_attempt_at = now() + interval '1 day'",
        });
        smtp.set_mode("ok");

        server.restart().await;

        server.logged("Mail sent").await;
    }
}
