//! Says in plain words why a connection to PostgreSQL could not be opened, and what to do about it.
//!
//! The words of the server and its SQLSTATE stay in the text: the server knows best, and other parts of this
//! module recognize an error by its SQLSTATE.

use std::{io, path::Path};

use rustls::AlertDescription;
use tokio_postgres::{
    Config,
    config::Host,
    error::{DbError, SqlState},
};

use crate::{
    connection_failure::{CertificateAdvice, certificate_fault, find_cause, resolution_fault},
    domain::chain,
};

const NOT_POSTGRES: &str = "what answers there is not PostgreSQL";

/// Returns why the server `host` could not be used.
pub(super) fn reason(error: &tokio_postgres::Error, host: &Config) -> String {
    if let Some(refusal) = error.as_db_error() {
        return refused(refusal, host);
    }
    if error.is_closed() {
        return "the server closed the connection at once: is it PostgreSQL?".to_owned();
    }
    if let Some(error) = find_cause::<rustls::Error>(error) {
        return tls_reason(error, host);
    }
    if let Some(error) = find_cause::<io::Error>(error) {
        return network_reason(error, host);
    }
    let text = chain(error);
    let way_out = if text.contains("does not support TLS") {
        "the server offers no TLS, or is not PostgreSQL: turn TLS on there (ssl = on), or write ?sslmode=disable if the network is trusted"
    } else if text.contains("password missing") {
        "the server asks for a password: write postgres://user:password@host/database"
    } else if text.contains("bytes remaining on stream") || text.contains("unexpected message") {
        NOT_POSTGRES
    } else {
        return text;
    };
    // `error communicating with the server` is recognized as a lost connection.
    if text.starts_with("error communicating") { format!("{way_out} ({text})") } else { way_out.to_owned() }
}

/// Says why the Unix socket `path` could not be opened.
pub(super) fn socket_reason(error: &io::Error, path: &Path) -> String {
    use io::ErrorKind as Kind;
    let reason = match error.kind() {
        Kind::NotFound => "no PostgreSQL server has this socket: No such file".to_owned(),
        Kind::ConnectionRefused => "no program listens on this socket (Connection refused)".to_owned(),
        Kind::PermissionDenied => "the user of this process may not use this socket".to_owned(),
        _ => error.to_string(),
    };
    format!("{}: {reason}", path.display())
}

/// Explains an error of the server.
fn refused(refusal: &DbError, host: &Config) -> String {
    let (user, database) = names(host);
    let explained = match *refusal.code() {
        SqlState::INVALID_PASSWORD => {
            format!(
                "the server refuses {user}: the password is wrong or has expired (VALID UNTIL), or there is no such role"
            )
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "the server does not admit {user} to {database}: the role is missing or may not log in, or pg_hba.conf has no \
             line for it, or only one that demands TLS (?sslmode=require)"
        ),
        SqlState::INVALID_CATALOG_NAME => {
            format!("the server has no {database}: create it, or correct the name in the URL")
        }
        SqlState::TOO_MANY_CONNECTIONS => format!(
            "the server has no free connection: max_connections of the server, or the limit of {user} or of {database}, is \
             reached"
        ),
        SqlState::CANNOT_CONNECT_NOW => "the server starts, stops or recovers".to_owned(),
        SqlState::INSUFFICIENT_PRIVILEGE => format!("{user} may not connect to {database}"),
        // `postgres_errors` has put the SQLSTATE before the message.
        _ => return refusal.message().to_owned(),
    };
    format!("{explained} ({})", refusal.message())
}

/// Returns the user and the database of a connection, to be shown.
fn names(host: &Config) -> (String, String) {
    let user = host.get_user();
    let shown = |what: &str, name: Option<&str>| match name {
        Some(name) => format!("{what} {name:?}"),
        None => format!("{what} (the URL names none)"),
    };
    (shown("the user", user), shown("database", host.get_dbname().or(user)))
}

/// Returns the name or address of a server.
fn name_of(host: &Config) -> String {
    match host.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => String::new(),
    }
}

/// Explains an error of the network.
fn network_reason(error: &io::Error, host: &Config) -> String {
    let name = name_of(host);
    if let Some(fault) = resolution_fault(error, &name) {
        return fault;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "no program listens there: is PostgreSQL running, and is the port right? (Connection refused)"
                .to_owned()
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "the server closed the connection at once: is it PostgreSQL?".to_owned()
        }
        io::ErrorKind::NotFound => format!("no PostgreSQL server has its socket in {name}"),
        // Bytes that are no message of PostgreSQL's protocol.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            NOT_POSTGRES.to_owned()
        }
        _ => error.to_string(),
    }
}

/// Explains an error of TLS.
fn tls_reason(error: &rustls::Error, host: &Config) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "what answers there speaks no TLS: is it PostgreSQL?".to_owned(),
        rustls::Error::InvalidCertificate(error) => {
            let advice = CertificateAdvice {
                name: &name_of(host),
                rename: "write one of them as the host",
                trust: "name a file with the certificate of that authority (?sslrootcert=FILE)",
            };
            format!("the certificate of the server {}", certificate_fault(error, advice))
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server supports neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        other => format!("TLS with the server failed: {other}"),
    }
}
