//! Composes a mail as an RFC 5322 message.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};

use super::{error::MailError, templates::RenderedMail};
use crate::store::OutgoingMail;

/// Composes a mail. The sender comes from the settings, the recipient from the outbox, and the subject from
/// the template. The username, which the user chose, appears only in the bodies.
///
/// # Errors
/// [`MailError::Invalid`] if lettre rejects the recipient's address or a part of the message.
pub fn compose(mail: &OutgoingMail, from: &Mailbox, rendered: RenderedMail) -> Result<Message, MailError> {
    let recipient: Address = mail.recipient.as_str().parse().map_err(MailError::invalid)?;
    // RFC 3834: automatic responders, such as vacation notices, do not reply to such a mail.
    let auto_submitted =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, recipient))
        .subject(rendered.subject)
        .message_id(Some(format!("<{}>", mail.message_id)))
        .date(system_time(mail.created_at.unix_micros()))
        .raw_header(auto_submitted)
        .multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
        .map_err(MailError::invalid)
}

/// Converts a time of the outbox. A time before 1970 becomes 1970; the outbox holds none.
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
        let rendered =
            RenderedMail { subject: "Hällo".into(), text: "täxt".repeat(500), html: "<p>".into() };
        let from = "Kairos <no-reply@kairos.example>".parse().unwrap();
        String::from_utf8(compose(&mail, &from, rendered).unwrap().formatted()).unwrap()
    }

    #[test]
    fn headers_come_from_the_settings_and_the_outbox() {
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
    fn no_line_exceeds_the_smtp_limit() {
        assert!(composed("ada@example.com").split("\r\n").all(|line| line.len() <= 998 && line.is_ascii()));
    }
}
