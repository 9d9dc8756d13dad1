//! Decides whether a reply of the SMTP server ends the delivery of a mail.
//!
//! A mail is abandoned only if the reply concerns its recipient or its content. If the reply concerns the
//! service (its address, its credentials, its right to use the server), the mail is retried until its link
//! expires: the cause is a mistake in the settings or a block, and usually ends before the link does.

use super::attempt::DeliveryOutcome;

/// The commands of an SMTP session that a server can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The greeting and EHLO.
    Hello,
    /// STARTTLS, with the handshake and the second EHLO.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, and the reply to the mail itself.
    Content,
}

impl Stage {
    /// Returns what the server has refused.
    pub(super) const fn refused(self) -> &'static str {
        match self {
            Self::Hello => "the connection",
            Self::StartTls => "STARTTLS",
            Self::Auth => "the credentials",
            Self::Sender => "the sender",
            Self::Recipient => "the recipient",
            Self::Content => "the mail",
        }
    }
}

/// The subject and the detail of an enhanced status code: 1 and 7 in `5.1.7` (RFC 3463).
type Enhanced = (u16, u16);

/// Classifies a refusal. The cause contains only the codes, since the text of the reply may repeat the
/// recipient's address.
pub(super) fn outcome(stage: Stage, code: u16, text: &str) -> DeliveryOutcome {
    let enhanced = enhanced(text);
    let codes = match enhanced {
        Some((subject, detail)) => format!("{code} {}.{subject}.{detail}", code / 100),
        None => code.to_string(),
    };
    let refused = stage.refused();
    if code / 100 != 5 {
        return DeliveryOutcome::FailedForNow(format!("the SMTP server refused {refused} for now: {codes}"));
    }
    if is_about_the_mail(stage, code, enhanced) {
        DeliveryOutcome::Refused(format!("the SMTP server rejected {refused}: {codes}"))
    } else {
        DeliveryOutcome::FailedForNow(format!(
            "the SMTP server rejected {refused}: {codes}; the reply concerns this service, not the recipient"
        ))
    }
}

/// True if a permanent refusal concerns the recipient or the content, so that another attempt cannot succeed.
fn is_about_the_mail(stage: Stage, code: u16, enhanced: Option<Enhanced>) -> bool {
    match (stage, enhanced) {
        (Stage::Hello | Stage::StartTls | Stage::Auth | Stage::Sender, _) => false,
        (_, Some((subject, detail))) if subject != 0 => is_code_about_the_mail(subject, detail),
        // Without an enhanced code, or with 5.0.x, which says as little: the replies that RFC 5321, section
        // 4.2.2, defines for a mailbox, and 556 of RFC 7504 (the domain accepts no mail).
        (Stage::Recipient, _) => matches!(code, 550..=553 | 556),
        // The same for a mail: refused, too large, not accepted.
        (Stage::Content, _) => matches!(code, 550 | 552 | 554),
    }
}

/// True for the enhanced codes that concern the recipient or the content. The others concern the service, its
/// network or the server: 5.1.7 and 5.1.8 (sender), and, with few exceptions, 5.3 (mail system), 5.4
/// (routing), 5.5 (protocol) and 5.7 (security and policy, such as `5.7.1 relaying denied`).
const fn is_code_about_the_mail(subject: u16, detail: u16) -> bool {
    match (subject, detail) {
        // The address of the sender.
        (1, 7 | 8) => false,
        // The other addresses, the mailbox and the format of the mail; a mail that is too large for the
        // server; and a mailbox or domain that has another owner now (RFC 7293).
        (1 | 2 | 6, _) | (3, 4) | (7, 17 | 18) => true,
        _ => false,
    }
}

/// Reads the enhanced status code at the start of a reply's text.
fn enhanced(text: &str) -> Option<Enhanced> {
    let mut parts = text.split_whitespace().next()?.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| {
        let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse().ok() } else { None }
    };
    if !matches!(class, "4" | "5") || parts.next().is_some() {
        return None;
    }
    Some((number(subject)?, number(detail)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_retried(stage: Stage, code: u16, text: &str) -> bool {
        matches!(outcome(stage, code, text), DeliveryOutcome::FailedForNow(_))
    }

    #[test]
    fn a_refusal_before_the_recipient_is_about_the_service() {
        for stage in [Stage::Hello, Stage::StartTls, Stage::Auth, Stage::Sender] {
            for (code, text) in
                [(554, ""), (550, "5.7.1 blocked"), (553, "5.1.8 bad sender"), (521, "x"), (550, "5.1.1")]
            {
                assert!(is_retried(stage, code, text), "{stage:?} {code} {text}");
            }
        }
    }

    #[test]
    fn the_codes_of_the_recipient_and_the_content_end_the_delivery() {
        for (stage, code, text) in [
            (Stage::Recipient, 550, "5.1.1 no such mailbox"),
            (Stage::Recipient, 550, "5.1.2 bad domain"),
            (Stage::Recipient, 556, "5.1.10 null MX"),
            (Stage::Recipient, 552, "5.2.2 mailbox full"),
            (Stage::Recipient, 550, "5.7.17 another owner"),
            (Stage::Recipient, 550, "No such user"),
            (Stage::Recipient, 553, "5.0.0 not allowed"),
            (Stage::Content, 554, "5.6.0 message rejected"),
            (Stage::Content, 552, "5.3.4 too large"),
            (Stage::Content, 554, "Transaction failed"),
        ] {
            assert!(!is_retried(stage, code, text), "{stage:?} {code} {text}");
        }
    }

    #[test]
    fn the_codes_of_the_service_are_retried_at_the_recipient_and_the_content() {
        for (code, text) in [
            (554, "5.7.1 <ada@example.com>: Relay access denied"),
            (550, "5.7.1 relaying denied"),
            (550, "5.7.26 DMARC"),
            (530, "5.7.0 authentication required"),
            (553, "5.1.8 bad sender's address"),
            (550, "5.1.7 bad sender's address"),
            (554, "5.3.0 system"),
            (550, "5.4.1 routing"),
            (503, "5.5.1 bad sequence"),
            (530, "Must issue a STARTTLS command first"),
            (503, "bad sequence"),
        ] {
            for stage in [Stage::Recipient, Stage::Content] {
                assert!(is_retried(stage, code, text), "{stage:?} {code} {text}");
            }
        }
        // Without an enhanced code, 554 is about the mail only at the content.
        assert!(is_retried(Stage::Recipient, 554, "Relay access denied"));
    }

    #[test]
    fn temporary_codes_are_retried_at_every_stage() {
        for (code, text) in [(451, "4.7.1 greylisted"), (452, "4.2.2 mailbox full"), (421, "")] {
            for stage in
                [Stage::Hello, Stage::StartTls, Stage::Auth, Stage::Sender, Stage::Recipient, Stage::Content]
            {
                assert!(is_retried(stage, code, text), "{stage:?} {code} {text}");
            }
        }
    }

    #[test]
    fn the_cause_has_the_codes_and_not_the_text() {
        let DeliveryOutcome::Refused(cause) =
            outcome(Stage::Recipient, 550, "5.1.1 <ada@example.com>: unknown")
        else {
            panic!("a refusal");
        };
        assert_eq!(cause, "the SMTP server rejected the recipient: 550 5.1.1");
    }

    #[test]
    fn a_malformed_enhanced_code_is_ignored() {
        for text in ["5.1.1.1 x", "5.1 x", "5.a.1", "5.1234.1", "+5.1.1", "5.+1.1", ""] {
            assert_eq!(enhanced(text), None, "{text}");
        }
    }
}
