//! The address of an end user, as used for limits.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The network that counts as one end user: an IPv4 address, or the first 64 bits of an IPv6 address, since
/// one subscriber has a whole /64 network (RFC 6177). An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is the
/// IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

/// The text is not a [`ClientAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an IPv4 or IPv6 address")]
pub struct InvalidClientAddress;

impl ClientAddress {
    /// Reads an address in the usual notation, without port or zone.
    ///
    /// # Errors
    /// [`InvalidClientAddress`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidClientAddress> {
        let address: IpAddr = text.parse().map_err(|_| InvalidClientAddress)?;
        Ok(Self::of(address))
    }

    /// Returns the network of an address: the one definition of "one peer" for connections, throttles and the
    /// audit trail.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        })
    }

    /// Reads the output of [`fmt::Display`]; returns `None` for any other text.
    #[must_use]
    pub fn from_displayed(text: &str) -> Option<Self> {
        let address = Self::parse(text.strip_suffix("/64").unwrap_or(text)).ok()?;
        (address.to_string() == text).then_some(address)
    }

    /// Returns the bytes of the address: 4 or 16.
    #[must_use]
    pub fn octets(self) -> Vec<u8> {
        match self.0 {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

/// The usual notation; for IPv6, the network with its prefix length `/64`.
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
    fn addresses_of_one_subscriber_are_equal() {
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
    fn a_displayed_address_is_read_again_and_no_other_text() {
        for text in ["192.0.2.1", "2001:db8:1:2::/64"] {
            assert_eq!(ClientAddress::from_displayed(text).unwrap().to_string(), text);
        }
        for text in ["2001:db8:1:2::", "2001:db8:1:2::1/64", "192.0.2.1/64", "::ffff:192.0.2.1", ""] {
            assert_eq!(ClientAddress::from_displayed(text), None, "{text}");
        }
    }

    #[test]
    fn the_octets_are_those_of_the_network() {
        assert_eq!(ClientAddress::parse("192.0.2.1").unwrap().octets(), [192, 0, 2, 1]);
        let network = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(ClientAddress::parse("2001:db8:1:2::1").unwrap().octets(), network);
    }

    #[test]
    fn a_text_that_is_not_exactly_one_address_is_refused() {
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
