//! The URL of a PostgreSQL database, as libpq reads it: several hosts, the folder of a Unix socket, escaped
//! values, `target_session_attrs`, and the TLS parameters (`sslmode`, `sslrootcert`), which tokio-postgres
//! does not support.
//!
//! Two differences are on purpose. Of several hosts, one that accepts writes is used by default (libpq: any).
//! No mode encrypts without verifying the server, and no mode falls back to plain text: `require`,
//! `verify-ca` and `verify-full` all verify the certificate and the host name; `prefer` and `allow` are
//! refused.

use std::{error::Error as _, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode};

/// The folder of the Unix socket if the URL names no host: the one that Debian's packages of PostgreSQL use.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// The port of a host if the URL names none: the default of PostgreSQL.
pub(crate) const PORT: u16 = 5432;

/// Why a port is refused. Its text is not shown.
const PORT_RULE: &str = "the port of a host is not a number from 1 to 65535";

/// Largest number of hosts in a URL. Each may take `database.connect-timeout` when connections are opened.
const HOSTS_MAX: usize = 16;

/// One or several servers of the same database, and whether connections to them use TLS.
#[derive(Debug, Clone)]
pub struct PostgresUrl {
    /// The servers in the order of the URL, each with the user, the database and the parameters; never empty.
    pub(crate) hosts: Vec<tokio_postgres::Config>,
    pub(crate) tls: TlsMode,
    pub(crate) target: TargetSession,
}

impl PostgresUrl {
    /// Returns `host:port` or the folder of the Unix socket of each server, separated by commas.
    pub(crate) fn address(&self) -> String {
        self.hosts.iter().map(address).collect::<Vec<_>>().join(",")
    }
}

/// Returns `host:port` of a server, or the folder of its Unix socket.
pub(crate) fn address(host: &tokio_postgres::Config) -> String {
    let port = host.get_ports().first().copied().unwrap_or(PORT);
    match host.get_hosts().first() {
        Some(Host::Tcp(name)) if name.contains(':') => format!("[{name}]:{port}"),
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => host.get_hostaddrs().first().map(|ip| format!("{ip}:{port}")).unwrap_or_default(),
    }
}

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain text: the default on loopback addresses and Unix sockets; `sslmode=disable` elsewhere.
    Disabled,
    /// TLS, except on Unix sockets. The certificate and the host name are verified against these roots or, if
    /// `None`, against those of the system.
    Verified {
        /// `sslrootcert`: a PEM file of trusted roots.
        roots: Option<PathBuf>,
    },
}

/// `target_session_attrs`: which of the servers are acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any server: the default for one host.
    Any,
    /// A server that accepts writes: the default for several hosts.
    ReadWrite,
    /// A server whose transactions only read.
    ReadOnly,
    /// A server that is not a standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby or, if there is none, any server.
    PreferStandby,
}

/// Reasons to refuse a PostgreSQL URL. They never contain the URL, which may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// Not a URL, or a URL with unknown parameters.
    #[error("{0}")]
    Malformed(String),
    /// An `sslmode` that may fall back to plain text, or an unknown one.
    #[error(
        "sslmode must be disable, require, verify-ca or verify-full, not {0} (all but disable verify the server)"
    )]
    SslMode(String),
    /// An unknown `target_session_attrs`.
    #[error(
        "target_session_attrs must be any, read-write, read-only, primary, standby or prefer-standby, not {0}"
    )]
    TargetSession(String),
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let mut parts = Parts::parse(text)?;
        let (mode, roots) = (parts.take("sslmode"), parts.take("sslrootcert").map(PathBuf::from));
        let target = parts.take("target_session_attrs");
        let hosts = parts.into_hosts()?;
        let tls = match mode.as_deref() {
            Some("disable") => TlsMode::Disabled,
            None if hosts.iter().all(is_local) => TlsMode::Disabled,
            None | Some("require" | "verify-ca" | "verify-full") => TlsMode::Verified { roots },
            Some(other) => return Err(InvalidPostgresUrl::SslMode(other.to_owned())),
        };
        let target = match target.as_deref() {
            None if hosts.len() > 1 => TargetSession::ReadWrite,
            None | Some("any") => TargetSession::Any,
            Some("read-write") => TargetSession::ReadWrite,
            Some("read-only") => TargetSession::ReadOnly,
            Some("primary") => TargetSession::Primary,
            Some("standby") => TargetSession::Standby,
            Some("prefer-standby") => TargetSession::PreferStandby,
            Some(other) => return Err(InvalidPostgresUrl::TargetSession(other.to_owned())),
        };
        Ok(Self { hosts, tls, target })
    }
}

/// The parts of a URL, with their escapes resolved. A parameter may replace a part: `?host=/folder`.
struct Parts {
    parameters: Vec<(String, String)>,
}

impl Parts {
    /// Splits a URL by the rules of libpq: `@` ends the user and password unless `/` comes first, hosts are
    /// separated by commas, and the last value of a parameter wins.
    fn parse(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let malformed = |reason: &str| InvalidPostgresUrl::Malformed(reason.to_owned());
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| malformed("it does not begin with postgres:// or postgresql://"))?;
        let before_query = rest.split('?').next().unwrap_or_default();
        if before_query.split_once('/').is_some_and(|(_, database)| database.contains('@')) {
            return Err(malformed(
                "a `@` follows the database: write %2F and %40 for `/` and `@` in a password",
            ));
        }
        let mut parts = Self { parameters: Vec::new() };
        let has_user = rest.find(['@', '/']).is_some_and(|end| rest.get(end..=end) == Some("@"));
        let rest = match rest.find(['@', '/']) {
            Some(end) if rest.get(end..).is_some_and(|rest| rest.starts_with('@')) => {
                let (credentials, rest) = rest.split_at(end);
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                parts.set_if_filled("user", decoded("the user", user)?);
                parts.set_if_filled("password", decoded("the password", password)?);
                rest.get(1..).unwrap_or_default()
            }
            _ => rest,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        refuse_ports(hosts, has_user)?;
        parts.set_hosts(hosts)?;
        parts.set_if_filled("dbname", decoded("the database", database)?);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter
                .split_once('=')
                .ok_or_else(|| malformed("a parameter after ? has no value: expected NAME=VALUE"))?;
            let key = decoded("the name of a parameter", key)?;
            if value.contains('=') {
                return Err(InvalidPostgresUrl::Malformed(format!(
                    "the value of {key} contains a second =: write %3D"
                )));
            }
            let value = decoded(&format!("the value of {key}"), value)?;
            match (key.as_str(), value.as_str()) {
                // The spelling of JDBC, which libpq accepts too.
                ("ssl", "true") => parts.set("sslmode", "require".to_owned()),
                _ => parts.set(&key, value),
            }
        }
        Ok(parts)
    }

    /// Sets `host` and `port` from the part before the database: `host`, `host:port` or `[IPv6]:port`,
    /// separated by commas.
    fn set_hosts(&mut self, text: &str) -> Result<(), InvalidPostgresUrl> {
        if text.is_empty() {
            return Ok(());
        }
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for host in text.split(',') {
            let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
                Some(Some((address, rest))) if rest.is_empty() || rest.starts_with(':') => (address, rest),
                Some(_) => {
                    let reason = "an IPv6 address needs brackets on both sides, and only :PORT may follow";
                    return Err(InvalidPostgresUrl::Malformed(reason.to_owned()));
                }
                None => host.split_at(host.find(':').unwrap_or(host.len())),
            };
            hosts.push(decoded("a host", name)?);
            ports.push(decoded("a port", port.strip_prefix(':').unwrap_or(port))?);
        }
        self.set("host", hosts.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            self.set("port", ports.join(","));
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String) {
        self.parameters.retain(|(known, _)| known != key);
        self.parameters.push((key.to_owned(), value));
    }

    fn set_if_filled(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.set(key, value);
        }
    }

    /// Removes a parameter and returns its value; an empty value counts as none.
    fn take(&mut self, key: &str) -> Option<String> {
        let index = self.parameters.iter().position(|(known, _)| known == key)?;
        Some(self.parameters.swap_remove(index).1).filter(|value| !value.is_empty())
    }

    /// Returns the options of each host.
    fn into_hosts(mut self) -> Result<Vec<tokio_postgres::Config>, InvalidPostgresUrl> {
        let list = |text: Option<String>| -> Vec<String> {
            text.map(|text| text.split(',').map(|entry| entry.trim().to_owned()).collect())
                .unwrap_or_default()
        };
        let (hosts, addresses) = (list(self.take("host")), list(self.take("hostaddr")));
        let ports = list(self.take("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        for (name, found) in [("hosts", hosts.len()), ("values of hostaddr", addresses.len())] {
            if found != 0 && found != count {
                return Err(InvalidPostgresUrl::Malformed(format!(
                    "{found} {name} do not match {count} servers"
                )));
            }
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(InvalidPostgresUrl::Malformed(format!(
                "{} ports do not match {count} hosts",
                ports.len()
            )));
        }
        if count > HOSTS_MAX {
            return Err(InvalidPostgresUrl::Malformed(format!("more than {HOSTS_MAX} hosts")));
        }
        let common = self.into_config()?;
        let entry_at = |list: &[String], index: usize| list.get(index).cloned().unwrap_or_default();
        (0..count)
            .map(|index| {
                // A single port applies to all hosts.
                let port = if ports.len() == 1 { entry_at(&ports, 0) } else { entry_at(&ports, index) };
                one_host(common.clone(), &entry_at(&hosts, index), &entry_at(&addresses, index), &port)
            })
            .collect()
    }

    /// Returns the options without the hosts. An error names the parameter.
    fn into_config(self) -> Result<tokio_postgres::Config, InvalidPostgresUrl> {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let mut settings = String::new();
        for (key, value) in &self.parameters {
            // A key with other characters could add settings of its own to the text, and is not shown.
            let is_name =
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let setting = format!("{key}='{}' ", quoted(value));
            if !is_name {
                let reason = "the name of a parameter after ? is not a word";
                return Err(InvalidPostgresUrl::Malformed(reason.to_owned()));
            }
            if let Err(error) = setting.parse::<tokio_postgres::Config>() {
                let reason = if error
                    .source()
                    .is_some_and(|cause| cause.to_string().starts_with("unknown option"))
                {
                    let way_out = match key.as_str() {
                        "sslcert" | "sslkey" => ": a password authenticates, not a certificate of the client",
                        _ => "",
                    };
                    format!("the parameter {key} is unknown{way_out}")
                } else {
                    format!("the value of the parameter {key} is invalid")
                };
                return Err(InvalidPostgresUrl::Malformed(reason));
            }
            settings.push_str(&setting);
        }
        settings
            .parse()
            .map_err(|error: tokio_postgres::Error| InvalidPostgresUrl::Malformed(error.to_string()))
    }
}

/// Refuses a host with an `@`, or with a port that is not a number from 1 to 65535. The error does not show
/// the text after the colon, which may be a part of a password: in `postgres://user:password/database`, the
/// host is missing.
fn refuse_ports(hosts: &str, has_user: bool) -> Result<(), InvalidPostgresUrl> {
    let malformed = |reason: String| Err(InvalidPostgresUrl::Malformed(reason));
    // An address without its second bracket has no port: `set_hosts` refuses it.
    for host in hosts.split(',').filter(|host| !host.starts_with('[') || host.contains(']')) {
        let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
        let port = after_address.split_once(':').map(|(_, port)| port).filter(|port| !port.is_empty());
        match port {
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
                return malformed(if has_user && !port.contains('@') {
                    PORT_RULE.to_owned()
                } else {
                    format!("{PORT_RULE} (a user and a password end with @)")
                });
            }
            _ if host.contains('@') => {
                return malformed("a host contains @: write an @ in the password as %40".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds a host to the options that all hosts share. A name that begins with `/` is the folder of a Unix
/// socket. Without a name and an address, the folder is [`SOCKET_FOLDER`].
fn one_host(
    mut config: tokio_postgres::Config,
    name: &str,
    address: &str,
    port: &str,
) -> Result<tokio_postgres::Config, InvalidPostgresUrl> {
    let invalid =
        |what: &str, text: &str| InvalidPostgresUrl::Malformed(format!("{what} {text:?} is invalid"));
    let number = if port.is_empty() { Ok(PORT) } else { port.parse::<u16>() };
    match number {
        Ok(number) if number > 0 => config.port(number),
        // The text may be a part of a password, in which `]` or `@` is not escaped.
        _ => return Err(InvalidPostgresUrl::Malformed(PORT_RULE.to_owned())),
    };
    if !address.is_empty() {
        config.hostaddr(address.parse().map_err(|_| invalid("the hostaddr", address))?);
        // The certificate must contain the name or, without one, the address.
        config.host(if name.is_empty() { address } else { name });
    } else if name.is_empty() {
        config.host_path(SOCKET_FOLDER);
    } else if name.starts_with('/') {
        config.host_path(name);
    } else if name.contains(char::is_whitespace) {
        return Err(invalid("the host", name));
    } else {
        config.host(name);
    }
    // `database` turns it off when it connects without TLS, according to `PostgresUrl::tls`.
    config.ssl_mode(SslMode::Require);
    Ok(config)
}

/// Resolves the escapes of a part of the URL. An error names the part.
fn decoded(part: &str, text: &str) -> Result<String, InvalidPostgresUrl> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(is_hex(bytes.next()) && is_hex(bytes.next())) {
            let reason =
                format!("{part} contains a % that is not followed by two hexadecimal digits: write %25");
            return Err(InvalidPostgresUrl::Malformed(reason));
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(value) if !value.contains('\0') => Ok(value.into_owned()),
        _ => Err(InvalidPostgresUrl::Malformed(format!("{part} is not UTF-8 or contains %00"))),
    }
}

/// True if no packet to the server leaves this machine.
fn is_local(host: &tokio_postgres::Config) -> bool {
    host.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
        && host.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
        })
}

#[cfg(test)]
mod tests;
