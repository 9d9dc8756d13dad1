//! Composes a mail as an RFC 5322 message.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    address::Envelope,
    message::{
        Mailbox, Mailboxes, MultiPart,
        header::{From, Header, HeaderName, HeaderValue},
    },
};

use super::{error::MailError, templates::RenderedMail};
use crate::{domain::Email, store::OutgoingMail};

/// Maximum length of a header text that needs no folding: a line has at most 78 characters (RFC 5322, section
/// 2.1.1), and the name of the header precedes the text.
const HEADER_TEXT_MAX: usize = 70;

/// Composes a mail. The sender comes from the settings, the recipient from the outbox, and the subject from
/// the template. The username, which the user chose, appears only in the bodies.
///
/// # Errors
/// [`MailError::Invalid`] if lettre rejects a part of the message or the address of the recipient. It accepts
/// every address that the rules of [`Email`] admit; an imported user may have another one.
pub fn compose(mail: &OutgoingMail, from: &Mailbox, rendered: RenderedMail) -> Result<Message, MailError> {
    let recipient = address(&mail.recipient)?;
    // Given here, because lettre would parse the header To with its own rules.
    let envelope = Envelope::new(Some(from.email.clone()), vec![recipient.clone()]);
    // RFC 3834: automatic responders, such as vacation notices, do not reply to such a mail.
    let auto_submitted =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    Message::builder()
        .envelope(envelope.map_err(MailError::invalid)?)
        .raw_header(from_header(from))
        .to(Mailbox::new(None, recipient))
        .subject(rendered.subject)
        .message_id(Some(format!("<{}>", mail.message_id)))
        .date(system_time(mail.created_at.unix_micros()))
        .raw_header(auto_submitted)
        .multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
        .map_err(MailError::invalid)
}

/// Converts an address. lettre's own rules are narrower: they know no combining marks.
fn address(email: &Email) -> Result<Address, MailError> {
    match email.mailbox() {
        Some((local, domain)) => Ok(Address::new_dangerous(local, domain)),
        None => email.as_str().parse().map_err(MailError::invalid),
    }
}

/// Writes the sender. A name in ASCII is quoted where it must be; lettre would encode it. Another name, or
/// one that must be folded, is left to lettre.
fn from_header(from: &Mailbox) -> HeaderValue {
    let text = from.to_string();
    if text.is_ascii() && text.len() <= HEADER_TEXT_MAX {
        let name = HeaderName::new_from_ascii_str("From");
        return HeaderValue::dangerous_new_pre_encoded(name, text.clone(), text);
    }
    From::from(Mailboxes::from(from.clone())).display()
}

/// Converts a time of the outbox. A time before 1970 becomes 1970; the outbox holds none.
fn system_time(unix_micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(unix_micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Email, MailKind, Timestamp, Username};

    fn composed(recipient: &str) -> String {
        let message = message(Email::parse(recipient).unwrap(), "Kairos <no-reply@kairos.example>");
        String::from_utf8(message.unwrap().formatted()).unwrap()
    }

    fn message(recipient: Email, from: &str) -> Result<Message, MailError> {
        let created_at = Timestamp::from_unix_micros(1_764_000_000_000_000);
        let mail = OutgoingMail {
            id: 1,
            kind: MailKind::VerifyEmail,
            recipient,
            username: Username::parse("Ada").ok(),
            sealed_token: None,
            message_id: "1234@kairos.example".into(),
            created_at,
            expires_at: created_at,
            attempts: 1,
            lease_until: created_at,
        };
        let rendered =
            RenderedMail { subject: "Hällo".into(), text: "täxt".repeat(500), html: "<p>".into() };
        compose(&mail, &from.parse().unwrap(), rendered)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The rules of [`Email`] decide what the mailer accepts.
        #[test]
        fn every_address_that_is_accepted_can_be_mailed_to(
            local in prop_oneof!["[\\PC&&[^@\\s]]{1,12}", "[\\p{L}\\p{M}]{1,8}"],
            domain in prop_oneof!["[a-z]{1,8}\\.[a-z]{2,5}", "[\\p{L}\\p{M}]{1,6}\\.[a-z]{2,5}"],
        ) {
            if let Ok(email) = Email::parse(&format!("{local}@{domain}")) {
                let composed = message(email.clone(), "Kairos <no-reply@kairos.example>");
                prop_assert!(composed.is_ok(), "{:?}: {:?}", email.as_str(), composed.err());
                let composed = composed.unwrap();
                let recipients: Vec<String> = composed.envelope().to().iter().map(ToString::to_string).collect();
                prop_assert_eq!(&recipients, &[email.as_str().to_owned()]);
                let text = String::from_utf8(composed.formatted()).unwrap();
                let header = format!("\r\nTo: {}\r\n", email.as_str());
                prop_assert!(text.contains(&header), "{}", text);
            }
        }
    }

    #[test]
    fn no_mail_is_composed_for_an_imported_address_that_breaks_the_rules() {
        for text in
            ["a@b.example> RCPT TO:<c@d.example", "a@b.example\r\nBcc: c@d.example", "a", "a b@c.example"]
        {
            assert!(message(Email::from_stored(text.to_owned()), "a@b.example").is_err(), "{text}");
        }
    }

    #[test]
    fn a_sender_name_keeps_its_quotes() {
        for (from, header) in [
            ("\"Kairos, Inc.\" <a@b.example>", "From: \"Kairos, Inc.\" <a@b.example>\r\n"),
            ("Kairos <a@b.example>", "From: Kairos <a@b.example>\r\n"),
            ("a@b.example", "From: a@b.example\r\n"),
            ("Käiros <a@b.example>", "From: =?utf-8?b?"),
        ] {
            let mail = message(Email::parse("ada@example.com").unwrap(), from).unwrap();
            let mail = String::from_utf8(mail.formatted()).unwrap();
            assert!(mail.contains(header), "{header} in {mail}");
        }
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
