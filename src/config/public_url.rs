//! The URL that links begin with.

use url::{Host, Url};

use super::value::Value;

/// The URL that links begin with: `http` or `https`, without query, fragment, username and password. It is
/// stored without trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Returns the URL, to which a path that begins with a slash can be appended.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if data sent to the URL cannot be read in transit: it is encrypted, or does not leave the
    /// machine.
    pub(super) fn is_confidential(&self) -> bool {
        self.0.starts_with("https:") || self.is_local()
    }

    /// True if the URL leads to this machine.
    pub(super) fn is_local(&self) -> bool {
        let Ok(url) = Url::parse(&self.0) else { return false };
        match url.host() {
            // These names lead to this machine (RFC 6761, section 6.3).
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl Value for PublicUrl {
    fn expects() -> String {
        "an http or https URL without a query, such as https://kairos.example".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        is_plain.then(|| Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_base_urls_are_http_without_query_fragment_or_credentials() {
        assert_eq!(
            PublicUrl::parse("https://kairos.example/app/").unwrap().as_str(),
            "https://kairos.example/app"
        );
        for text in [
            "",
            "kairos.example",
            "ftp://x",
            "https://x/?a",
            "https://x/#a",
            "https://u:p@x",
            "javascript:alert(1)",
        ] {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }
}
