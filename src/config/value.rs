//! The types of settings: how the text of a setting is parsed and validated.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

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

    /// Returns what is wrong with an invalid text, if it has parts of which one is wrong. It contains no part
    /// of the text that may be a secret.
    #[must_use]
    fn flaw(_text: &str) -> Option<String> {
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
        text.parse().ok().filter(|address: &Self| !is_of_many(address.ip()))
    }

    fn suggestion(text: &str) -> Option<String> {
        if let Some(port) = text.strip_prefix("*:") {
            return port.parse::<u16>().ok().map(|port| format!("0.0.0.0:{port}"));
        }
        let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
        port.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"))
    }

    fn flaw(text: &str) -> Option<String> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Some("an IPv6 address needs brackets and a port: [ADDRESS]:PORT".to_owned());
        }
        if text.parse::<Self>().is_ok_and(|address| is_of_many(address.ip())) {
            return Some("it is an address of many machines".to_owned());
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            return address.parse::<IpAddr>().is_ok().then(|| "the port is missing".to_owned());
        };
        Some(match (host.parse::<Ipv6Addr>(), port.parse::<u16>()) {
            (Ok(_), Ok(port)) => format!("an IPv6 address needs brackets: [{host}]:{port}"),
            (_, Err(_)) => "the port is not a number from 0 to 65535".to_owned(),
            (Err(_), Ok(_)) => format!("\"{host}\" is not an IP address, and a host name is not accepted"),
        })
    }
}

/// True for an address of several machines, which no connection has: multicast and broadcast.
fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
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

    fn flaw(text: &str) -> Option<String> {
        T::flaw(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_part_of_an_address_is_named() {
        for (text, flaw) in [
            ("127.0.0.1", "the port is missing"),
            ("[::1]", "the port is missing"),
            ("127.0.0.1:65536", "the port is not a number"),
            ("127.0.0.1:http", "the port is not a number"),
            ("id.example:50051", "a host name is not accepted"),
            ("::1:50051", "needs brackets"),
            ("2001:db8:0:0:0:0:0:1:50051", "needs brackets: [2001:db8:0:0:0:0:0:1]:50051"),
            ("255.255.255.255:50051", "many machines"),
            ("224.0.0.1:50051", "many machines"),
            ("[ff02::1]:50051", "many machines"),
        ] {
            assert_eq!(SocketAddr::parse(text), None, "{text}");
            let found = <Option<SocketAddr>>::flaw(text).unwrap_or_default();
            assert!(found.contains(flaw), "{text}: {found}");
        }
        assert_eq!(SocketAddr::suggestion("*:50051").as_deref(), Some("0.0.0.0:50051"));
    }
}
