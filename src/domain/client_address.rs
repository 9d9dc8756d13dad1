//! Where an end user calls from, as far as limits are concerned.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The network that one end user is taken for: an IPv4 address, or the first 64 bits of an IPv6 address, all of which one
/// subscriber has (RFC 6177). An IPv4 address in IPv6's clothes (`::ffff:a.b.c.d`) is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

/// Why a text is no [`ClientAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an IPv4 or IPv6 address")]
pub struct InvalidClientAddress;

impl ClientAddress {
    /// Reads an address in the usual notation, without port or zone.
    ///
    /// # Errors
    /// [`InvalidClientAddress`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidClientAddress> {
        let address: IpAddr = text.parse().map_err(|_| InvalidClientAddress)?;
        Ok(Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        }))
    }

    /// Reads what [`fmt::Display`] shows; nothing for anything else.
    #[must_use]
    pub fn from_shown(text: &str) -> Option<Self> {
        let address = Self::parse(text.strip_suffix("/64").unwrap_or(text)).ok()?;
        (address.to_string() == text).then_some(address)
    }

    /// Its bytes: 4 or 16.
    #[must_use]
    pub fn octets(self) -> Vec<u8> {
        match self.0 {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

/// As people write it; of an IPv6 address the network.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        if self.0.is_ipv6() { f.write_str("/64") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_one_address() {
        let same = |left: &str, right: &str| {
            ClientAddress::parse(left).unwrap() == ClientAddress::parse(right).unwrap()
        };
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(same("2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        let shown = |text: &str| ClientAddress::parse(text).unwrap().to_string();
        assert_eq!(shown("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(shown("2001:db8:1:2:3::1"), "2001:db8:1:2::/64");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "192.0.2",
            "192.0.2.1:80",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "192.0.2.1, 192.0.2.2",
            "localhost",
            " 192.0.2.1",
        ] {
            assert_eq!(ClientAddress::parse(text), Err(InvalidClientAddress), "{text}");
        }
    }
}
