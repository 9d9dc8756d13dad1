//! Mail delivery to a real SMTP server that refuses, delays and drops mails.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, LoginRequest, RegisterRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, UpdateAccountRequest, VerifyEmailRequest,
    account_service_client::AccountServiceClient,
};
use serde_json::Value;
use tonic::Code;

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    mime::Entity,
    people::{PASSWORD, address, login, registration},
    server::{Builder, TestServer},
    sessions::acting,
    smtp::SmtpServer,
    tls::Certificate,
    wait::until,
};

const ARRIVAL_LIMIT: Duration = Duration::from_secs(15);

/// Returns the settings of a service that sends mail to `smtp` with short pauses between attempts.
fn mailing_to(smtp: &SmtpServer) -> Builder {
    TestServer::builder(Engine::Sqlite)
        .with_mail_url(&smtp.url())
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_FIRST", "200ms")
        .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "50ms")
        .with_env("KAIROS_IDENTITY_MAIL_TIMEOUT", "2s")
}

/// Waits until there are at least `count` delivery attempts, and returns all of them.
async fn attempts(smtp: &SmtpServer, count: usize) -> Vec<Value> {
    let enough = async || Some(smtp.log()).filter(|log| log.len() >= count);
    until(&format!("{count} attempts"), ARRIVAL_LIMIT, enough).await
}

fn message_id(attempt: &Value) -> String {
    let data = STANDARD.decode(attempt["data"].as_str().unwrap()).unwrap();
    let mail = Entity::parse(&String::from_utf8(data).unwrap());
    mail.header("message-id").unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_reaches_its_one_recipient() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp).start().await;
    server.client().await.register(registration("ada")).await.unwrap();

    let attempts = attempts(&smtp, 1).await;

    assert_eq!(attempts[0]["recipients"], serde_json::json!([address("ada")]));
    server.logged("Mail sent").await;
}

/// Header names that a mail may have.
const HEADERS: [&str; 8] =
    ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"];

/// Texts that an attacker may use as a username or in an email to inject headers, recipients or markup. The
/// service refuses some of them.
const HOSTILE: [&str; 16] = [
    "Ada\r\nBcc: eve@evil.example",
    "Ada\nBcc: eve@evil.example",
    "Ada\u{85}Bcc: eve@evil.example",
    "Ada\u{2028}Bcc: eve@evil.example",
    "Ada\r\n.\r\nMAIL FROM:<eve@evil.example>",
    "=?utf-8?q?Ada=0D=0ABcc:_eve=40evil.example?=",
    "<script>alert(1)</script>",
    "<a href=\"https://evil.example\">Ada</a>",
    "{{ link }} {% raw %}",
    "Ada\u{202e}adA",
    "\"Ada\" <eve",
    "Ada, Eve",
    ".",
    "..",
    "a&lt;b&gt;&amp;",
    "Ada \u{1f37d}",
];

/// Asserts that a mail has one of `recipients` as its only recipient, only the headers in [`HEADERS`], no
/// text of the attacker's domain in its headers, and no bare CR or LF.
#[track_caller]
fn assert_nothing_injected(attempt: &Value, recipients: &[String]) {
    let [recipient] = attempt["recipients"].as_array().unwrap().as_slice() else { panic!("{attempt}") };
    assert!(recipients.iter().any(|known| known == recipient.as_str().unwrap()), "{recipient}");
    let data = String::from_utf8(STANDARD.decode(attempt["data"].as_str().unwrap()).unwrap()).unwrap();
    let (head, _) = data.split_once("\r\n\r\n").unwrap();
    let names: Vec<_> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert!(names.iter().all(|name| HEADERS.contains(name)), "{head}");
    assert!(!head.contains("evil") && !data.replace("\r\n", "").contains(['\r', '\n']), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_username_or_email_adds_no_recipient_and_no_header() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp).start().await;
    let mut client = server.client().await;
    let mut recipients = Vec::new();
    for (number, text) in HOSTILE.into_iter().enumerate() {
        let as_name = RegisterRequest { username: text.into(), ..registration(&format!("ada{number}")) };
        let local = format!("{text}{number}@example.com");
        let as_address = RegisterRequest { email: local, ..registration(&format!("bob{number}")) };
        for request in [as_name, as_address] {
            if let Ok(answer) = client.register(request).await {
                recipients.push(answer.into_inner().user.unwrap().email);
            }
        }
    }
    assert!(recipients.len() >= 8, "{recipients:?}");

    let attempts = attempts(&smtp, recipients.len()).await;

    for attempt in &attempts {
        assert_nothing_injected(attempt, &recipients);
    }
}

/// Registers a user with a hostile username or email and makes calls that send six mails of different kinds.
/// With `confirms`, the user also confirms the new email. Returns the number of mails, or `None` if the
/// registration is refused.
async fn trigger_all_mails(
    server: &TestServer,
    name: &str,
    email: &str,
    new_email: &str,
    confirms: bool,
) -> Option<usize> {
    let register = RegisterRequest {
        username: name.to_owned(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        request_id: String::new(),
        return_mail_token: true,
    };
    let mut identity = server.client().await;
    let mut accounts = AccountServiceClient::new(server.channel().await);
    let token = identity.register(register.clone()).await.ok()?.into_inner().mail_token;
    identity.verify_email(VerifyEmailRequest { token }).await.unwrap();
    // Mail registration_attempted.
    identity.register(RegisterRequest { username: format!("{name} 2"), ..register }).await.unwrap_err();
    let login = LoginRequest { email: email.to_owned(), password: PASSWORD.to_owned() };
    let tokens = identity.login(login).await.unwrap().into_inner().tokens.unwrap();
    // Mail username_changed.
    let rename = UpdateAccountRequest { username: format!("{name} 3"), update_mask: None };
    accounts.update_account(acting(&tokens, rename)).await.unwrap();
    // Mail password_changed.
    let (current_password, new_password) = (PASSWORD.to_owned(), "quartz-Lantern-57-meadow".to_owned());
    let change = ChangePasswordRequest { current_password, new_password: new_password.clone() };
    accounts.change_password(acting(&tokens, change)).await.unwrap();
    // Mails email_change_requested, and confirm_email_change or email_changed.
    let change = RequestEmailChangeRequest {
        current_password: new_password,
        new_email: new_email.to_owned(),
        return_mail_token: confirms,
    };
    let token = accounts.request_email_change(acting(&tokens, change)).await.unwrap().into_inner().mail_token;
    let email = if confirms {
        accounts.confirm_email_change(ConfirmEmailChangeRequest { token }).await.unwrap();
        new_email
    } else {
        email
    };
    // Mail reset_password.
    let reset = RequestPasswordResetRequest { email: email.to_owned(), return_mail_token: false };
    accounts.request_password_reset(reset).await.unwrap();
    Some(6)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kind_of_mail_gains_a_recipient_or_header() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp).start().await;
    let (mut recipients, mut mails) = (Vec::new(), 0);
    for (number, text) in HOSTILE.into_iter().enumerate() {
        for confirms in [false, true] {
            let email_of = |name: &str| format!("{name}{number}{confirms}@example.com");
            let local = format!("{text}{number}{confirms}@example.com").to_lowercase();
            let (as_name, as_address) = (
                (format!("{text} {confirms}"), email_of("cyd")),
                (format!("Dan {number} {confirms}"), local),
            );
            for ((name, email), new_email) in [(as_name, email_of("new")), (as_address, email_of("other"))] {
                if let Some(count) = trigger_all_mails(&server, &name, &email, &new_email, confirms).await {
                    recipients.extend([email, new_email]);
                    mails += count;
                }
            }
        }
    }
    assert!(recipients.len() >= 12, "{recipients:?}");

    let attempts = attempts(&smtp, mails).await;

    assert_eq!(attempts.len(), mails);
    for attempt in &attempts {
        assert_nothing_injected(attempt, &recipients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_or_lost_mail_is_retried_with_the_same_message_id() {
    for mode in ["refuse-4xx", "drop-before-250"] {
        let smtp = SmtpServer::start();
        smtp.set_mode(mode);
        let server = mailing_to(&smtp).start().await;
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
        let server = mailing_to(&smtp).start().await;
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
    let server = mailing_to(&smtp).start().await;
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
    let mut server = mailing_to(&smtp).start().await;
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

    let server = mailing_to(&smtp).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail delivery failed; retrying").await;
    assert!(smtp.log().is_empty(), "no mail was delivered");
    drop(server);

    let trusted = own.certificate();
    let server = mailing_to(&smtp).with_env("SSL_CERT_FILE", trusted.to_str().unwrap()).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_loopback_gets_no_plaintext_mail_without_the_flag() {
    let smtp = SmtpServer::start();
    let remote = smtp.non_loopback_url();

    let server = mailing_to(&smtp).with_mail_url(&remote).start().await;
    server.client().await.register(registration("ada")).await.unwrap();
    server.logged("Mail delivery failed; retrying").await;
    assert!(smtp.log().is_empty(), "no mail was delivered");
    drop(server);

    let allowed =
        mailing_to(&smtp).with_mail_url(&remote).with_args(&["--insecure-mail-plaintext"]).start().await;
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
