//! Composes a mail for arbitrary usernames and addresses. It must have one recipient, no unexpected headers,
//! and no line that is too long (RFC 5322, section 2.1.1).

use std::sync::LazyLock;

use kairos_identity::{
    domain::{Email, MailKind, MailToken, Timestamp, Username},
    mail::{MailValues, Templates, compose},
    store::OutgoingMail,
};

use super::super::input;

static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| Templates::new("https://kairos.example").unwrap());

const HEADERS: [&str; 8] =
    ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"];

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(texts) = input::<(String, String)>(bytes) else { return };
    let (Ok(username), Ok(recipient)) = (Username::parse(&texts.0), Email::parse(&texts.1)) else { return };
    let at = Timestamp::from_unix_micros(1_764_000_000_000_000);
    let token = MailToken::from_random([7; 32]);
    let values = MailValues { username: Some(&username), at, token: Some(&token), expires_at: at };
    let rendered = TEMPLATES.render(MailKind::VerifyEmail, &values).unwrap();
    let mail = OutgoingMail {
        id: 1,
        kind: MailKind::VerifyEmail,
        recipient: recipient.clone(),
        username: Some(username),
        sealed_token: None,
        message_id: "1234@kairos.example".into(),
        created_at: at,
        expires_at: at,
        attempts: 1,
        lease_until: at,
    };
    let from = "Kairos <no-reply@kairos.example>".parse().unwrap();
    let message = compose(&mail, &from, rendered).expect("an accepted address can be mailed to");
    assert_eq!(message.envelope().to().len(), 1);
    assert_eq!(message.envelope().to()[0].to_string(), recipient.as_str());
    let bytes = message.formatted();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    for line in head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])) {
        let (name, _) = line.split_once(':').unwrap();
        assert!(HEADERS.contains(&name), "{line}");
    }
    assert!(bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    assert!(!bytes.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r'), "no bare LF");
}
