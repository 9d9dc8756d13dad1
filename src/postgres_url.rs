//! A PostgreSQL URL with the TLS parameters of libpq (`sslmode`, `sslrootcert`), which tokio-postgres does
//! not support.
//!
//! No mode encrypts without verifying the server, and no mode falls back to plain text: `require`,
//! `verify-ca` and `verify-full` all verify the certificate and the host name; `prefer` and `allow` are
//! refused.

use std::{path::PathBuf, str::FromStr};

use tokio_postgres::config::{Host, SslMode};
use url::Url;

/// A server, and whether connections to it use TLS.
#[derive(Debug, Clone)]
pub struct PostgresUrl {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: TlsMode,
}

impl PostgresUrl {
    /// Returns `host:port`, or the directory of the Unix socket, of the first server in the URL.
    pub(crate) fn address(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => format!("{host}:{port}"),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => {
                self.config.get_hostaddrs().first().map(|host| format!("{host}:{port}")).unwrap_or_default()
            }
        }
    }
}

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain text: the default on loopback addresses and Unix sockets; `sslmode=disable` elsewhere.
    Disabled,
    /// TLS. The certificate and the host name are verified against these roots or, if `None`, against those
    /// of the system.
    Verified {
        /// `sslrootcert`: a PEM file of trusted roots.
        roots: Option<PathBuf>,
    },
}

/// Reasons to refuse a PostgreSQL URL. They never contain the URL, which may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// Not a URL, or a URL with unknown parameters.
    #[error("expected postgres://user:password@host:port/database?sslmode=MODE: {0}")]
    Malformed(String),
    /// An `sslmode` that may fall back to plain text, or an unknown one.
    #[error(
        "sslmode must be disable, require, verify-ca or verify-full, not {0} (all but disable verify the server)"
    )]
    SslMode(String),
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let mut url = Url::parse(text).map_err(|error| InvalidPostgresUrl::Malformed(error.to_string()))?;
        let (mut mode, mut roots, mut others) = (None, None, Vec::new());
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => roots = Some(PathBuf::from(value.into_owned())),
                _ => others.push((key.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let mut config = tokio_postgres::Config::from_str(url.as_str())
            .map_err(|error| InvalidPostgresUrl::Malformed(error.to_string()))?;
        let tls = match mode.as_deref() {
            Some("disable") => TlsMode::Disabled,
            None if is_local(&config) => TlsMode::Disabled,
            None | Some("require" | "verify-ca" | "verify-full") => TlsMode::Verified { roots },
            Some(other) => return Err(InvalidPostgresUrl::SslMode(other.to_owned())),
        };
        config.ssl_mode(if tls == TlsMode::Disabled { SslMode::Disable } else { SslMode::Require });
        Ok(Self { config, tls })
    }
}

/// True if no packet to the server leaves this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let addresses_are = config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    addresses_are
        && config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> TlsMode {
        url.parse::<PostgresUrl>().unwrap().tls
    }

    #[test]
    fn a_remote_server_is_verified_unless_sslmode_is_disable() {
        assert_eq!(tls("postgres://a@db.example/x"), TlsMode::Verified { roots: None });
        assert_eq!(tls("postgres://a@db.example/x?sslmode=require"), TlsMode::Verified { roots: None });
        assert_eq!(
            tls("postgres://a@db.example/x?sslmode=verify-full&sslrootcert=%2Fca.pem"),
            TlsMode::Verified { roots: Some("/ca.pem".into()) }
        );
        assert_eq!(tls("postgres://a@db.example/x?sslmode=disable"), TlsMode::Disabled);
    }

    #[test]
    fn a_local_server_needs_no_tls() {
        assert_eq!(tls("postgres://a@127.0.0.1:5433/x"), TlsMode::Disabled);
        assert_eq!(tls("postgres://a@localhost/x?application_name=k"), TlsMode::Disabled);
        assert_eq!(tls("postgres:///x?host=/run/postgresql"), TlsMode::Disabled);
    }

    #[test]
    fn an_sslmode_that_may_fall_back_is_refused_and_the_error_has_no_password() {
        let error = "postgres://a:hunter2@db/x?sslmode=prefer".parse::<PostgresUrl>().unwrap_err();
        assert!(error.to_string().contains("not prefer") && !error.to_string().contains("hunter2"));
    }
}
