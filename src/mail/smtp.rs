//! Mails over SMTP (RFC 5321), encrypted unless told otherwise.

use std::{net::IpAddr, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    transport::smtp::{
        Error,
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};

use super::{attempt::Outcome, transport::MailError};
use crate::store::chain;

/// Replies about our own credentials (RFC 4954): a mistake in the settings, not a fault of the mail.
const AUTHENTICATION_CODES: [&str; 5] = ["454", "530", "534", "535", "538"];

/// An SMTP server and how to speak to it.
pub struct SmtpOptions {
    /// Its name, which its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name and password, if it asks for them.
    pub credentials: Option<(String, String)>,
    /// How the way to it is protected.
    pub encryption: Encryption,
    /// Allows a way in the clear to a host that is not loopback, when the server offers no encryption.
    pub allow_plaintext: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// When the way is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// By STARTTLS (RFC 3207).
    StartTls,
    /// From the first byte (RFC 8314).
    Implicit,
}

impl SmtpOptions {
    /// A server on this machine need not encrypt.
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
            // A server that offers it is held to it.
            Encryption::StartTls if options.may_be_plaintext() => Tls::Opportunistic(tls),
            // One that does not offer STARTTLS, or from whose answer somebody removed it, gets no mail.
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

    pub(super) async fn send(&self, message: &Message) -> Outcome {
        match tokio::time::timeout(self.timeout, self.transport.send(message.clone())).await {
            Ok(Ok(_)) => Outcome::Sent,
            Ok(Err(error)) => outcome(&error),
            Err(_) => Outcome::Failed(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// The code and not the words: servers repeat the address in them.
fn outcome(error: &Error) -> Outcome {
    match error.status().map(|code| code.to_string()) {
        Some(code) if AUTHENTICATION_CODES.contains(&code.as_str()) => {
            Outcome::Failed(format!("the SMTP server does not take our credentials: {code}"))
        }
        Some(code) if error.is_permanent() => Outcome::Refused(format!("the SMTP server refused it: {code}")),
        Some(code) => Outcome::Failed(format!("the SMTP server put it off: {code}")),
        None => Outcome::Failed(chain(error)),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_gets_mail_in_the_clear_unless_allowed() {
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
