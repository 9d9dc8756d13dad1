//! The addresses of a PostgreSQL host. A name may have several, of which some do not answer, as those of a
//! network that is not connected. They are tried one after the other, as libpq does (PostgreSQL, "Connection
//! Strings", 34.1.1.3).

use std::net::IpAddr;

use tokio_postgres::{Config, config::Host};

use crate::postgres_url::{PORT, address};

/// The most addresses of a name that are tried. It bounds the time that a name can take.
pub(super) const ADDRESSES_MAX: usize = 4;

/// Returns a configuration for each address of the host, beginning with `preferred` if it is one of them. The
/// name stays in it, for the verification of the certificate. A socket, a host that is an address, and a name
/// that cannot be looked up are returned as they are: an attempt to connect to the latter says why.
pub(super) async fn addresses(host: &Config, preferred: Option<IpAddr>) -> Vec<Config> {
    let [Host::Tcp(name)] = host.get_hosts() else { return vec![host.clone()] };
    if !host.get_hostaddrs().is_empty() || name.parse::<IpAddr>().is_ok() {
        return vec![host.clone()];
    }
    let port = host.get_ports().first().copied().unwrap_or(PORT);
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let mut found: Vec<IpAddr> = found.into_iter().flatten().map(|socket| socket.ip()).collect();
    found.sort_by_key(|ip| Some(*ip) != preferred);
    if found.is_empty() {
        return vec![host.clone()];
    }
    found.truncate(ADDRESSES_MAX);
    let at = |ip: &IpAddr| {
        let mut host = host.clone();
        host.hostaddr(*ip);
        host
    };
    found.iter().map(at).collect()
}

/// Returns the address that [`addresses`] added.
pub(super) fn ip_of(host: &Config) -> Option<IpAddr> {
    host.get_hostaddrs().first().copied()
}

/// Returns the address of a host for a message: `host:port`, with the IP address if it is one of several.
pub(super) fn shown(host: &Config, is_one_of_several: bool) -> String {
    match ip_of(host) {
        Some(ip) if is_one_of_several => format!("{} ({ip})", address(host)),
        _ => address(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Config {
        let mut host = Config::new();
        host.host(name).port(5433);
        host
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_kept_for_the_certificate() {
        let found = addresses(&host("localhost"), None).await;
        assert!(!found.is_empty());
        for address in &found {
            assert!(ip_of(address).unwrap().is_loopback());
            assert_eq!(address.get_hosts(), [Host::Tcp("localhost".to_owned())]);
            assert_eq!(address.get_ports(), [5433]);
        }
        let last = ip_of(found.last().unwrap());
        assert_eq!(ip_of(&addresses(&host("localhost"), last).await[0]), last, "the preferred one is first");
    }

    #[tokio::test]
    async fn what_is_not_a_known_name_is_left_as_it_is() {
        for name in ["127.0.0.1", "::1", "/var/run/postgresql", "no-such-host.invalid"] {
            assert_eq!(addresses(&host(name), None).await, [host(name)], "{name}");
        }
    }
}
