//! The address to which flaws of a deployment are reported.

use url::Url;

use super::value::Value;

/// Maximum length of an address.
const OCTETS_MAX: usize = 255;

/// A `mailto:` or `https:` URL (RFC 9116, section 2.5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityContact(String);

impl SecurityContact {
    /// Returns the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for SecurityContact {
    fn expects() -> String {
        "a mailto or https URL, such as mailto:security@kairos.example".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_contact = match url.scheme() {
            "mailto" => {
                url.path().split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            }
            "https" => url.password().is_none(),
            _ => false,
        };
        let is_plain = text.len() <= OCTETS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_contact && is_plain).then(|| Self(text.to_owned()))
    }

    fn suggestion(text: &str) -> Option<String> {
        let url = format!("mailto:{text}");
        Self::parse(&url).map(|_| url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_a_mailto_or_https_url_on_one_line() {
        for text in ["mailto:security@kairos.example", "https://kairos.example/security"] {
            assert!(SecurityContact::parse(text).is_some(), "{text}");
        }
        for text in
            ["", "security@kairos.example", "mailto:security", "http://a.example", "mailto:a@b\nExpires: x"]
        {
            assert!(SecurityContact::parse(text).is_none(), "{text}");
        }
        assert_eq!(SecurityContact::suggestion("a@b.example").as_deref(), Some("mailto:a@b.example"));
    }
}
