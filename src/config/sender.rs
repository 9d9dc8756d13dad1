//! The sender of mails.

use super::value::Value;
use crate::domain::Email;

/// The sender of mails, written as `name@host` or `Name <name@host>`.
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
        let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) else {
            return Some(Self { name: None, address: Email::parse(text).ok()? });
        };
        let name = name.trim();
        let is_clean = !name.chars().any(char::is_control);
        let name = (!name.is_empty()).then(|| name.to_owned());
        is_clean.then_some(Self { name, address: Email::parse(address).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
