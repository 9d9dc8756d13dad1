//! Sends mails over SMTP (RFC 5321), encrypted unless a setting or a loopback host allows plaintext.

use std::{net::IpAddr, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    transport::smtp::{
        Error,
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};

use super::{attempt::DeliveryOutcome, error::MailError};
use crate::domain::chain;

/// Reply codes that concern the service's own credentials (RFC 4954). They point to a mistake in the
/// settings, so the mail is retried.
const AUTHENTICATION_CODES: [&str; 5] = ["454", "530", "534", "535", "538"];

/// The address, credentials and limits of an SMTP server.
pub struct SmtpOptions {
    /// The server's host name, which its certificate must contain.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// Username and password, if the server requires authentication.
    pub credentials: Option<(String, String)>,
    /// How the connection is encrypted.
    pub encryption: Encryption,
    /// Allows an unencrypted connection to a host that is not loopback, if the server does not offer
    /// STARTTLS.
    pub allow_plaintext: bool,
    /// The time limit of one attempt.
    pub timeout: Duration,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// With STARTTLS (RFC 3207).
    StartTls,
    /// With TLS from the first byte (RFC 8314).
    Implicit,
}

impl SmtpOptions {
    /// True if the connection may stay unencrypted. A server on loopback need not offer encryption.
    fn may_be_plaintext(&self) -> bool {
        self.allow_plaintext || is_loopback(&self.host)
    }
}

pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    timeout: Duration,
}

impl Smtp {
    pub(super) fn new(options: SmtpOptions) -> Result<Self, MailError> {
        let tls = TlsParameters::new(options.host.clone()).map_err(MailError::Tls)?;
        let tls = match options.encryption {
            Encryption::Implicit => Tls::Wrapper(tls),
            // STARTTLS is used if the server offers it.
            Encryption::StartTls if options.may_be_plaintext() => Tls::Opportunistic(tls),
            // If STARTTLS is missing from the server's reply, or an attacker removed it, no mail is sent.
            Encryption::StartTls => Tls::Required(tls),
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(options.host)
            .port(options.port)
            .tls(tls)
            .timeout(Some(options.timeout));
        let builder = match options.credentials {
            Some((name, password)) => builder.credentials(Credentials::new(name, password)),
            None => builder,
        };
        Ok(Self { transport: builder.build(), timeout: options.timeout })
    }

    pub(super) async fn send(&self, message: &Message) -> DeliveryOutcome {
        match tokio::time::timeout(self.timeout, self.transport.send(message.clone())).await {
            Ok(Ok(_)) => DeliveryOutcome::Sent,
            Ok(Err(error)) => outcome(&error),
            Err(_) => {
                DeliveryOutcome::Failed(format!("the SMTP server did not answer within {:?}", self.timeout))
            }
        }
    }
}

/// Classifies an SMTP error. The cause contains only the reply code: the reply text may repeat the
/// recipient's address.
fn outcome(error: &Error) -> DeliveryOutcome {
    match error.status().map(|code| code.to_string()) {
        Some(code) if AUTHENTICATION_CODES.contains(&code.as_str()) => {
            DeliveryOutcome::Failed(format!("the SMTP server rejected the credentials: {code}"))
        }
        Some(code) if error.is_permanent() => {
            DeliveryOutcome::Refused(format!("the SMTP server rejected the mail: {code}"))
        }
        Some(code) => {
            DeliveryOutcome::Failed(format!("the SMTP server reported a temporary failure: {code}"))
        }
        None => DeliveryOutcome::Failed(chain(error)),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_plaintext_unless_allowed() {
        let may = |host: &str, allow_plaintext| {
            SmtpOptions {
                host: host.to_owned(),
                port: 25,
                credentials: None,
                encryption: Encryption::StartTls,
                allow_plaintext,
                timeout: Duration::from_secs(1),
            }
            .may_be_plaintext()
        };
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1"] {
            assert!(may(host, false), "{host}");
        }
        for host in ["mail.example", "localhost.example", "10.0.0.1", "::2", "127.0.0.1.example"] {
            assert!(!may(host, false) && may(host, true), "{host}");
        }
    }
}
