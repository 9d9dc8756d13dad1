//! The types of settings: how the text of a setting is parsed and validated.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::{
    database_url::{DatabaseUrl, DatabaseUrls},
    mail_url::MailUrl,
};
use crate::domain::{Email, Timestamp};

/// A type into which the text of a setting is parsed.
pub trait Value: Sized {
    /// Returns a description of the valid texts, which follows the word "expected" in an error.
    fn expects() -> String;

    /// Parses the text; `None` if it is invalid. The caller reports what was expected.
    fn parse(text: &str) -> Option<Self>;
}

/// A whole number from `MIN` to `MAX`, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the number as a length.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl<const MIN: u32, const MAX: u32> Value for Count<MIN, MAX> {
    fn expects() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }
}

/// A number of bytes from `MIN` to `MAX`, written as `65536` or `64KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const MIN: u32, const MAX: u32>(Count<MIN, MAX>);

impl<const MIN: u32, const MAX: u32> Bytes<MIN, MAX> {
    /// Returns the number of bytes.
    #[must_use]
    pub const fn count(self) -> Count<MIN, MAX> {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> Value for Bytes<MIN, MAX> {
    fn expects() -> String {
        format!("a number of bytes from {MIN} to {MAX}, such as 65536 or 64KiB")
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let factor = match unit {
            "" | "B" => 1,
            "KiB" => 1_024,
            "MiB" => 1_024 * 1_024,
            _ => return None,
        };
        let bytes = u32::try_from(number.checked_mul(factor)?).ok()?;
        (MIN..=MAX).contains(&bytes).then_some(Self(Count(bytes)))
    }
}

/// A duration from `MIN` to `MAX` milliseconds, written as `500ms`, `10s`, `30m`, `24h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// Returns the duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Value for Span<MIN, MAX> {
    fn expects() -> String {
        format!(
            "a duration from {} to {}, such as 500ms, 10s, 30m, 24h or 7d",
            formatted(MIN),
            formatted(MAX)
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let millis = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, factor)| number.checked_mul(*factor))?;
        (MIN..=MAX).contains(&millis).then(|| Self(Duration::from_millis(millis)))
    }
}

/// The units of durations and their lengths in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Formats milliseconds in the largest unit of which they are a multiple.
fn formatted(millis: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", millis / factor))
}

/// Splits a text into its number and its unit. Spaces between them are allowed.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A text of 1 to `MAX` printable ASCII characters without spaces. It is written into tokens, and readers
/// compare it byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Value for Text<MAX> {
    fn expects() -> String {
        format!("1 to {MAX} printable ASCII characters without spaces")
    }

    fn parse(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_plain && (1..=MAX).contains(&text.len())).then(|| Self(text.to_owned()))
    }
}

impl Value for bool {
    fn expects() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for Timestamp {
    fn expects() -> String {
        "an RFC 3339 time, such as 2026-12-31T23:59:59Z".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Value for SocketAddr {
    fn expects() -> String {
        "an address and a port, such as 127.0.0.1:50051 or [::]:50051".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for PathBuf {
    fn expects() -> String {
        "a path".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }
}

/// An empty text means unset.
impl<T: Value> Value for Option<T> {
    fn expects() -> String {
        format!("{}, or empty", T::expects())
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }
}

impl Value for DatabaseUrl {
    fn expects() -> String {
        "sqlite:///folder/file, sqlite://relative/file or postgres://user:password@host:port/database"
            .to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Value for DatabaseUrls {
    fn expects() -> String {
        "URLs such as postgres://user:password@host:port/database, separated by commas, or empty".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Value for MailUrl {
    fn expects() -> String {
        "file:///folder, smtp://user:password@host:port or smtps://user:password@host:port".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

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
        let Ok(url) = Url::parse(&self.0) else { return false };
        url.scheme() == "https"
            || match url.host() {
                // RFC 6761, section 6.3
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

/// Log directives in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Returns the directives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogLevel {
    fn expects() -> String {
        "error, warn, info, debug or trace, or directives such as info,kairos_identity::mail=debug".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // EnvFilter accepts any word as the name of a target, so a misspelt level would pass unnoticed.
        let are_levels = text.split(',').all(|directive| {
            LEVELS.contains(&directive.rsplit('=').next().unwrap_or_default().trim().to_lowercase().as_str())
        });
        (are_levels && EnvFilter::try_new(text).is_ok()).then(|| Self(text.to_owned()))
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for operators.
    Text,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    fn expects() -> String {
        "text or json".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        let span = |text| Span::<500, 86_400_000>::parse(text).map(|span| span.get().as_millis());
        assert_eq!(span("500ms"), Some(500));
        assert_eq!(span("24h"), Some(86_400_000));
        assert_eq!(span("1 d"), Some(86_400_000));
        for text in ["", "5", "499ms", "2d", "-1s", "1.5s", "1w", "99999999999999999999s", "s", "1s "] {
            assert_eq!(span(text), None, "{text}");
        }
        assert!(Span::<500, 86_400_000>::expects().starts_with("a duration from 500ms to 1d"));
    }

    #[test]
    fn bytes_have_binary_units() {
        let bytes = |text| Bytes::<1, 1_048_576>::parse(text).map(|bytes| bytes.count().get());
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("1 MiB"), Some(1_048_576));
        assert_eq!(bytes("10"), Some(10));
        for text in ["0", "2MiB", "64KB", "4294967297MiB", "x"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_valid_only_for_optional_settings() {
        assert_eq!(Option::<PathBuf>::parse(""), Some(None));
        assert_eq!(PathBuf::parse(""), None);
        assert_eq!(Count::<1, 5>::parse(""), None);
        assert_eq!(Count::<1, 5>::parse("6"), None);
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
    fn a_misspelt_log_level_is_refused() {
        assert!(LogLevel::parse("info,kairos_identity::mail=debug").is_some());
        for text in ["", "inof", "info,", "kairos=loud"] {
            assert_eq!(LogLevel::parse(text), None, "{text}");
        }
    }
}
