//! The sender of mails.

use super::value::Value;
use crate::domain::Email;

/// The sender of mails, written as `name@host` or `Name <name@host>`. The name may be in quotes, which do not
/// belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The display name.
    pub name: Option<String>,
    /// The address.
    pub address: Email,
}

impl Value for Sender {
    fn expects() -> String {
        "an address, such as no-reply@kairos.example or Kairos <no-reply@kairos.example>".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) else {
            return Some(Self { name: None, address: Email::parse(text).ok()? });
        };
        let name = unquoted(name.trim())?;
        let is_clean = !name.chars().any(char::is_control);
        let name = (!name.is_empty()).then_some(name);
        is_clean.then_some(Self { name, address: Email::parse(address).ok()? })
    }
}

/// Returns the text of a quoted string (RFC 5322, section 3.2.4), and any other text unchanged. `None` if the
/// quotes do not match.
fn unquoted(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let (mut name, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next()? {
            '\\' => name.push(characters.next()?),
            '"' => break,
            other => name.push(other),
        }
    }
    characters.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_around_the_name_do_not_belong_to_it() {
        for (text, name) in [
            ("\"Kairos, Inc.\" <a@b.example>", "Kairos, Inc."),
            ("Kairos, Inc. <a@b.example>", "Kairos, Inc."),
            ("\"Kairos <3\" <a@b.example>", "Kairos <3"),
            (r#""The \"Kairos\" \\ team" <a@b.example>"#, r#"The "Kairos" \ team"#),
        ] {
            assert_eq!(Sender::parse(text).unwrap().name.as_deref(), Some(name), "{text}");
        }
        for text in ["\"Kairos <a@b.example>", "\"Kairos\" Inc <a@b.example>", "\"Kairos\\\" <a@b.example>"] {
            assert_eq!(Sender::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_sender_has_an_address_and_an_optional_name() {
        let sender = Sender::parse("Kairos <no-reply@kairos.localhost>").unwrap();
        assert_eq!(
            (sender.name.as_deref(), sender.address.as_str()),
            (Some("Kairos"), "no-reply@kairos.localhost")
        );
        assert_eq!(Sender::parse("a@b.example").unwrap().name, None);
        for text in ["", "Kairos", "Kairos <>", "Kai\nros <a@b.example>", "<a@b.example> x"] {
            assert_eq!(Sender::parse(text), None, "{text}");
        }
    }
}
