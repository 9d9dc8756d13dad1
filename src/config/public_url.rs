//! The URL that links begin with.

use url::{Host, ParseError, Url};

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

    /// Returns the port to which the URL leads.
    pub(super) fn port(&self) -> Option<u16> {
        Url::parse(&self.0).ok()?.port_or_known_default()
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
        Self::read(text).ok()
    }

    fn flaw(text: &str) -> Option<String> {
        Self::read(text).err().map(str::to_owned)
    }
}

impl PublicUrl {
    /// Parses a URL. The error says what is wrong with it.
    fn read(text: &str) -> Result<Self, &'static str> {
        const WRONG_SCHEME: &str = "it begins with neither https:// nor http://";
        const WRONG_PORT: &str = "the port is not a number from 1 to 65535";
        let is_web = |scheme: &str| matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
        // The parser would repair a URL with too few or too many slashes, or with spaces in it.
        let (_, rest) = text.split_once("://").filter(|(scheme, _)| is_web(scheme)).ok_or(WRONG_SCHEME)?;
        if rest.is_empty() || rest.starts_with('/') {
            return Err("the host is missing");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("it contains a space, a control character or a backslash");
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::InvalidPort => WRONG_PORT,
            ParseError::EmptyHost => "the host is missing",
            ParseError::InvalidIpv6Address => "an IPv6 address needs brackets on both sides",
            _ => "the host is not valid",
        })?;
        if url.port() == Some(0) {
            return Err(WRONG_PORT);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a ? or # follows the path: leave it out");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it has a user or a password, which every mail would contain");
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
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

    #[test]
    fn the_wrong_part_of_a_url_is_named() {
        for (text, flaw) in [
            ("", "begins with neither"),
            ("kairos.example", "begins with neither"),
            ("ftp://x", "begins with neither"),
            ("https:/x", "begins with neither"),
            ("https:///x", "the host is missing"),
            ("http://", "the host is missing"),
            ("http://:80", "the host is missing"),
            ("https://x:0", "the port"),
            ("https://x:70000", "the port"),
            ("https://x:http", "the port"),
            ("https://[::1", "brackets"),
            ("https://x y", "a space"),
            ("https://x/?a", "a ? or #"),
            ("https://x/#a", "a ? or #"),
            ("https://u:hunter2@x", "a user or a password"),
        ] {
            let found = PublicUrl::flaw(text).unwrap_or_default();
            assert!(found.contains(flaw) && !found.contains("hunter2"), "{text}: {found}");
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
        assert_eq!(PublicUrl::parse("HTTPS://X.example:8443").unwrap().as_str(), "https://x.example:8443");
    }
}
