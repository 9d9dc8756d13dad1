//! A mail as bytes (RFC 5322).

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};

use super::{templates::Words, transport::MailError};
use crate::store::OutgoingMail;

/// Puts a mail together. Whom it is from and to, and its subject, come from settings, the address and the template; what
/// a person chose (their name) is in the bodies alone.
///
/// # Errors
/// [`MailError`] for an address that lettre does not know to send to.
pub fn compose(mail: &OutgoingMail, from: &Mailbox, words: Words) -> Result<Message, MailError> {
    let recipient: Address = mail.recipient.as_str().parse().map_err(MailError::unfit)?;
    // RFC 3834: no vacation notice answers it.
    let automatic =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, recipient))
        .subject(words.subject)
        .message_id(Some(format!("<{}>", mail.message_id)))
        .date(system_time(mail.created_at.unix_micros()))
        .raw_header(automatic)
        .multipart(MultiPart::alternative_plain_html(words.text, words.html))
        .map_err(MailError::unfit)
}

/// Times before 1970 do not occur: the outbox is younger.
fn system_time(unix_micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(unix_micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Email, MailKind, Timestamp, Username};

    fn composed(recipient: &str) -> String {
        let created_at = Timestamp::from_unix_micros(1_764_000_000_000_000);
        let mail = OutgoingMail {
            id: 1,
            kind: MailKind::VerifyEmail,
            recipient: Email::parse(recipient).unwrap(),
            username: Username::parse("Ada").unwrap(),
            sealed_token: None,
            message_id: "1234@kairos.example".into(),
            created_at,
            expires_at: created_at,
            attempts: 1,
            lease_until: created_at,
        };
        let words = Words { subject: "Hällo".into(), text: "täxt".repeat(500), html: "<p>".into() };
        let from = "Kairos <no-reply@kairos.example>".parse().unwrap();
        String::from_utf8(compose(&mail, &from, words).unwrap().formatted()).unwrap()
    }

    #[test]
    fn the_headers_are_what_settings_and_the_outbox_say() {
        let mail = composed("ada@example.com");
        for header in [
            "From: Kairos <no-reply@kairos.example>\r\n",
            "To: ada@example.com\r\n",
            "Message-ID: <1234@kairos.example>\r\n",
            "Date: Mon, 24 Nov 2025 16:00:00 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "MIME-Version: 1.0\r\n",
            "Content-Type: multipart/alternative;",
        ] {
            assert!(mail.contains(header), "{header} in {mail}");
        }
    }

    #[test]
    fn no_line_is_longer_than_smtp_carries() {
        assert!(composed("ada@example.com").split("\r\n").all(|line| line.len() <= 998 && line.is_ascii()));
    }
}
