//! The name in the EHLO command of SMTP.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::value::Value;

/// Maximum length of a host name (RFC 1035).
const NAME_OCTETS_MAX: usize = 253;

/// Maximum length of a label of a host name.
const LABEL_OCTETS_MAX: usize = 63;

/// A host name, or an address literal (RFC 5321, section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloName(String);

impl HelloName {
    /// Returns the text that follows EHLO.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for HelloName {
    fn expects() -> String {
        "a host name, such as id.kairos.example, or an address literal, such as [192.0.2.1] or [IPv6:2001:db8::1]"
            .to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let is_valid = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(literal) => match literal.strip_prefix("IPv6:") {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => literal.parse::<Ipv4Addr>().is_ok(),
            },
            None => is_host_name(text),
        };
        is_valid.then(|| Self(text.to_owned()))
    }
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_OCTETS_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= NAME_OCTETS_MAX && text.split('.').all(is_label) && text.parse::<Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_or_an_address_literal_is_a_hello_name() {
        for text in
            ["id.kairos.example", "localhost", "xn--bcher-kva.example", "[192.0.2.1]", "[IPv6:2001:db8::1]"]
        {
            assert_eq!(HelloName::parse(text).unwrap().as_str(), text);
        }
        let long = "x".repeat(64);
        for text in [
            "",
            "a b",
            "a\r\nMAIL",
            "-a.example",
            "a..b",
            "bücher.example",
            "192.0.2.1",
            "[x]",
            "[::1]",
            &long,
        ] {
            assert_eq!(HelloName::parse(text), None, "{text}");
        }
    }
}
