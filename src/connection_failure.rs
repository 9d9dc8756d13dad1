//! Says in plain words why a connection to a server failed, and what to do about it.

use std::{error::Error, io};

use rustls::CertificateError;

/// What a reader can do about a certificate that is not accepted.
#[derive(Debug, Clone, Copy)]
pub struct CertificateAdvice<'a> {
    /// The name that the certificate must contain.
    pub name: &'a str,
    /// How to give another name, as in `write one of them as the host`.
    pub rename: &'a str,
    /// How to trust the authority that issued the certificate.
    pub trust: &'a str,
}

/// Returns what is wrong with the certificate of a server. The text continues a sentence whose subject is the
/// certificate.
#[must_use]
pub fn certificate_fault(error: &CertificateError, advice: CertificateAdvice<'_>) -> String {
    use CertificateError as Invalid;
    let CertificateAdvice { name, rename, trust } = advice;
    match error {
        Invalid::UnknownIssuer | Invalid::BadSignature => {
            format!("is not issued by an authority that is trusted here: {trust}")
        }
        Invalid::Expired | Invalid::ExpiredContext { .. } => {
            "has expired: renew it, or correct the clock of this machine".to_owned()
        }
        Invalid::NotValidYet | Invalid::NotValidYetContext { .. } => {
            "is not valid yet: correct the clock of this machine".to_owned()
        }
        Invalid::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("has no name at all, and {name} is expected: issue it with a subjectAltName")
        }
        Invalid::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| presented_name(name)).collect();
            format!("has the names {}, and not {name}: {rename}", names.join(", "))
        }
        Invalid::NotValidForName => format!("is not for {name}: {rename}"),
        // The library has no variant for this error of webpki.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "is that of an authority, which may not be a server's own (as `openssl req -x509` makes it without \
             `-addext basicConstraints=critical,CA:FALSE`)"
                .to_owned()
        }
        other => format!("is not valid: {other}"),
    }
}

/// Returns a name of a certificate without the words of the library around it, as in `DnsName("db.example")`.
fn presented_name(text: &str) -> &str {
    text.split_once('(').map_or(text, |(_, name)| name.trim_end_matches(')').trim_matches('"'))
}

/// Returns why the addresses of `host` could not be found; `None` if the error is another.
#[must_use]
pub fn resolution_fault(error: &io::Error, host: &str) -> Option<String> {
    let text = error.to_string();
    // The cause that follows distinguishes a wrong name from a name server that does not answer.
    let cause = text.contains("lookup address").then(|| text.rsplit(": ").next().unwrap_or_default())?;
    Some(format!("the host name {host} cannot be resolved: {cause}"))
}

/// Returns the first error of a type among the causes of an error. An [`io::Error`] is searched for the error
/// that it wraps first.
#[must_use]
pub fn find_cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<E>()) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}
