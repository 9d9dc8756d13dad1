//! No username and no email injects a recipient or a header into a mail.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, LoginRequest, RegisterRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, UpdateAccountRequest, VerifyEmailRequest,
    account_service_client::AccountServiceClient,
};
use serde_json::Value;

use crate::support::{
    people::{NEW_PASSWORD, PASSWORD, registration},
    server::TestServer,
    sessions::acting,
    smtp::{SmtpServer, attempts, mailing_to},
};

/// Header names that a mail may have.
const HEADERS: [&str; 8] =
    ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"];

/// Texts that an attacker may use as a username or in an email to inject headers, recipients or markup. The
/// service refuses some of them.
const HOSTILE: [&str; 17] = [
    "Ada\r\nBcc: eve@evil.example",
    "Ada\nBcc: eve@evil.example",
    "Ada\u{85}Bcc: eve@evil.example",
    "Ada\u{2028}Bcc: eve@evil.example",
    "Ada\r\n.\r\nMAIL FROM:<eve@evil.example>",
    "=?utf-8?q?Ada=0D=0ABcc:_eve=40evil.example?=",
    "<script>alert(1)</script>",
    "<a href=\"https://evil.example\">Ada</a>",
    "<a name=\"eve\">Ada</a>",
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
    let server = mailing_to(&smtp.url()).start().await;
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
async fn trigger_six_mails(
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
    let (current_password, new_password) = (PASSWORD.to_owned(), NEW_PASSWORD.to_owned());
    let change = ChangePasswordRequest { current_password, new_password: new_password.clone() };
    accounts.change_password(acting(&tokens, change)).await.unwrap();
    // Mails email_change_requested, and confirm_email_change or email_replaced.
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
async fn seven_other_kinds_of_mail_gain_no_recipient_and_no_header() {
    let smtp = SmtpServer::start();
    let server = mailing_to(&smtp.url()).start().await;
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
                if let Some(count) = trigger_six_mails(&server, &name, &email, &new_email, confirms).await {
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
