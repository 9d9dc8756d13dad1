//! The types of settings: how the text of a setting is parsed and validated.

use std::{net::SocketAddr, path::PathBuf};

use crate::domain::Timestamp;

/// A type into which the text of a setting is parsed.
pub trait Value: Sized {
    /// Returns a description of the valid texts, which follows the word "expected" in an error.
    fn expects() -> String;

    /// Parses the text; `None` if it is invalid. The caller reports what was expected.
    fn parse(text: &str) -> Option<Self>;

    /// Returns the valid text that an invalid one probably means.
    #[must_use]
    fn suggestion(_text: &str) -> Option<String> {
        None
    }
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

    fn suggestion(text: &str) -> Option<String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some("true".to_owned()),
            "false" | "no" | "off" | "0" => Some("false".to_owned()),
            _ => None,
        }
    }
}

impl Value for Timestamp {
    fn expects() -> String {
        "an RFC 3339 time, such as 2026-12-31T23:59:59Z".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Timestamp::parse(text)
    }
}

impl Value for SocketAddr {
    fn expects() -> String {
        "an address and a port, such as 127.0.0.1:50051 or [::]:50051".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn suggestion(text: &str) -> Option<String> {
        let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
        port.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"))
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

    fn suggestion(text: &str) -> Option<String> {
        T::suggestion(text)
    }
}
