//! Sends mails over SMTP (RFC 5321), encrypted unless a setting or a loopback host allows plaintext.
//!
//! The commands are sent one by one, so that each refusal is attributed to its command ([`Stage`]). Each mail
//! has a connection of its own.

use std::{error::Error as _, io, net::IpAddr, time::Duration};

use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};

use super::{
    attempt::DeliveryOutcome,
    error::MailError,
    refusal::{self, Stage},
};
use crate::{
    connection_failure::{CertificateAdvice, certificate_fault, find_cause, resolution_fault},
    domain::chain,
};

/// The time that a server has to answer QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The part of the time limit of an attempt that one address of the server has to accept the connection, as a
/// divisor: if an address does not answer, there is time for the next one and for the mail.
const CONNECT_SHARE: u32 = 3;

/// The address, credentials and limits of an SMTP server.
pub struct SmtpOptions {
    /// The server's host name, which its certificate must contain.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The name of this service in EHLO.
    pub hello_name: String,
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
    host: String,
    port: u16,
    hello: ClientId,
    credentials: Option<Credentials>,
    tls: Tls,
    timeout: Duration,
}

/// Why a mail was not delivered.
enum DeliveryError {
    /// The server refused a command, or the connection failed at it.
    Smtp(Stage, Error),
    /// The server lacks an extension that the mail needs.
    Lacks(&'static str),
    /// The server does not offer STARTTLS, without which no mail is sent.
    LacksStartTls,
    /// The server offers no mechanism of AUTH that is supported here.
    LacksAuth,
}

/// Attributes an error to a stage.
fn at(stage: Stage) -> impl FnOnce(Error) -> DeliveryError {
    move |error| DeliveryError::Smtp(stage, error)
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
        Ok(Self {
            host: options.host,
            port: options.port,
            // A name that is an address literal (`[192.0.2.1]`) is written as it is too.
            hello: ClientId::Domain(options.hello_name),
            credentials: options.credentials.map(|(name, password)| Credentials::new(name, password)),
            tls,
            timeout: options.timeout,
        })
    }

    /// Delivers one mail within the timeout.
    pub(super) async fn send(&self, message: &Message) -> DeliveryOutcome {
        match tokio::time::timeout(self.timeout, self.deliver(message)).await {
            Ok(Ok(())) => DeliveryOutcome::Sent,
            Ok(Err(error)) => self.outcome(&error),
            Err(_) => self.no_answer(),
        }
    }

    /// Returns the outcome if the server does not answer in time.
    fn no_answer(&self) -> DeliveryOutcome {
        let lacks_implicit_tls = self.port == SMTPS_PORT && !matches!(self.tls, Tls::Wrapper(_));
        let hint = if lacks_implicit_tls {
            ": this port expects TLS from the first byte: write smtps:// instead of smtp:// in mail.url"
        } else {
            ""
        };
        DeliveryOutcome::FailedForNow(format!(
            "the SMTP server {} did not answer within {:?}{hint}",
            self.host, self.timeout
        ))
    }

    /// Connects to the server as for a mail, and ends the connection without one.
    pub(super) async fn check(&self) -> Result<(), String> {
        let connected = tokio::time::timeout(self.timeout, self.connect()).await;
        let failed = match connected {
            Ok(Ok(mut connection)) => {
                // The server has accepted everything; its answer to QUIT does not matter.
                let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await;
                return Ok(());
            }
            Ok(Err(error)) => self.outcome(&error),
            Err(_) => self.no_answer(),
        };
        Err(failed.into_cause().unwrap_or_default())
    }

    /// Converts a delivery error into the outcome of the attempt. A reply with a status code is classified by
    /// [`refusal::outcome`]; any other error is temporary.
    fn outcome(&self, error: &DeliveryError) -> DeliveryOutcome {
        if let DeliveryError::Smtp(stage, error) = error
            && let Some(code) = error.status()
        {
            let text = error.source().map(ToString::to_string).unwrap_or_default();
            return refusal::outcome(*stage, code.into(), &text);
        }
        let host = &self.host;
        DeliveryOutcome::FailedForNow(match error {
            DeliveryError::Smtp(stage, error) => connection_fault(*stage, error, host),
            DeliveryError::Lacks(extension) => format!(
                "the SMTP server does not support {extension}, which this mail needs: use another server"
            ),
            DeliveryError::LacksStartTls => format!(
                "the SMTP server {host} offers no STARTTLS, and mails are not sent unencrypted: write smtps:// in mail.url \
                 if its port expects TLS from the first byte, or set mail.insecure-plaintext"
            ),
            DeliveryError::LacksAuth => format!(
                "the SMTP server {host} offers no AUTH that is supported here (PLAIN, LOGIN): correct the port, or remove \
                 the user from mail.url"
            ),
        })
    }

    /// Delivers one mail over a connection of its own.
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError> {
        let mut connection = self.connect().await?;
        let delivered = transfer(&mut connection, message).await;
        // QUIT follows in the background: the server has accepted or refused the mail before, and a mail that
        // it accepted must not fail at the time limit.
        tokio::spawn(async move { tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await });
        delivered
    }

    /// Connects, encrypts and authenticates.
    async fn connect(&self) -> Result<AsyncSmtpConnection, DeliveryError> {
        let wrapper = if let Tls::Wrapper(tls) = &self.tls { Some(tls.clone()) } else { None };
        let server = (self.host.as_str(), self.port);
        let connect_timeout = Some(self.timeout / CONNECT_SHARE);
        let connected =
            AsyncSmtpConnection::connect_tokio1(server, connect_timeout, &self.hello, wrapper, None);
        let mut connection = connected.await.map_err(at(Stage::Hello))?;
        let start_tls = match &self.tls {
            Tls::Opportunistic(tls) if connection.can_starttls() => Some(tls),
            Tls::Required(tls) => Some(tls),
            _ => None,
        };
        if let Some(tls) = start_tls {
            if !connection.can_starttls() {
                return Err(DeliveryError::LacksStartTls);
            }
            connection.starttls(tls.clone(), &self.hello).await.map_err(at(Stage::StartTls))?;
        }
        if let Some(credentials) = &self.credentials {
            if connection.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
                return Err(DeliveryError::LacksAuth);
            }
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(at(Stage::Auth))?;
        }
        Ok(connection)
    }
}

/// Sends one mail over a connection.
async fn transfer(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), DeliveryError> {
    let (envelope, bytes) = (message.envelope(), message.formatted());
    let parameters = parameters(connection, message, &bytes)?;
    connection.command(Mail::new(envelope.from().cloned(), parameters)).await.map_err(at(Stage::Sender))?;
    for recipient in envelope.to() {
        let command = Rcpt::new(recipient.clone(), Vec::new());
        connection.command(command).await.map_err(at(Stage::Recipient))?;
    }
    connection.command(Data).await.map_err(at(Stage::Content))?;
    connection.message(&bytes).await.map_err(at(Stage::Content))?;
    Ok(())
}

/// Returns the parameters of MAIL FROM.
///
/// # Errors
/// [`DeliveryError::Lacks`] if the server does not support an extension that the addresses or the content
/// need.
fn parameters(
    connection: &AsyncSmtpConnection,
    message: &Message,
    bytes: &[u8],
) -> Result<Vec<MailParameter>, DeliveryError> {
    let supports = |extension| connection.server_info().supports_feature(extension);
    let mut parameters = Vec::new();
    let envelope = message.envelope();
    let mut addresses = envelope.from().into_iter().chain(envelope.to());
    if addresses.any(|address| !address.to_string().is_ascii()) {
        if !supports(Extension::SmtpUtfEight) {
            return Err(DeliveryError::Lacks("SMTPUTF8"));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !bytes.is_ascii() {
        if !supports(Extension::EightBitMime) {
            return Err(DeliveryError::Lacks("8BITMIME"));
        }
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(parameters)
}

/// Returns why a connection failed, for which the server gave no status code.
fn connection_fault(stage: Stage, error: &Error, host: &str) -> String {
    match find_cause::<rustls::Error>(error) {
        Some(rustls::Error::InvalidMessage(_)) if stage == Stage::StartTls => {
            return format!("the SMTP server {host} accepted STARTTLS, but its answer is not TLS");
        }
        Some(rustls::Error::InvalidMessage(_)) if stage == Stage::Hello => {
            return "this port speaks no TLS from the first byte: write smtp:// instead of smtps:// in mail.url"
                .to_owned();
        }
        Some(rustls::Error::InvalidCertificate(error)) => {
            let advice = CertificateAdvice {
                name: host,
                rename: "write one of them in mail.url",
                trust: "add the certificate of that authority to those of the system, or name a file with SSL_CERT_FILE",
            };
            return format!("the certificate of the SMTP server {}", certificate_fault(error, advice));
        }
        Some(error) => return format!("the TLS connection to the SMTP server {host} failed: {error}"),
        None => {}
    }
    match find_cause::<io::Error>(error) {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            format!("no program listens on the port of {host} in mail.url (Connection refused)")
        }
        Some(error) if error.kind() == io::ErrorKind::TimedOut => {
            format!("{host} in mail.url does not accept a connection (timed out): is a firewall between?")
        }
        Some(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("the SMTP server {host} answered with text that is not UTF-8 ({})", stage.refused())
        }
        Some(error)
            if stage == Stage::Hello
                && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
        {
            format!(
                "{host} in mail.url accepts the connection and closes it at once: does that port speak SMTP, and TLS \
                 from the first byte (smtps://) or not (smtp://)?"
            )
        }
        Some(error) => resolution_fault(error, host).unwrap_or_else(|| error.to_string()),
        None if chain(error).contains("incomplete response") => {
            format!("the SMTP server {host} closed the connection before it answered ({})", stage.refused())
        }
        None if error.is_response() => format!(
            "what answers on the port of {host} in mail.url is no SMTP server: its answer is no SMTP reply ({})",
            stage.refused()
        ),
        None => format!("the SMTP server {host}: {}", chain(error)),
    }
}

/// The port on which servers expect TLS from the first byte (RFC 8314, section 7.3).
const SMTPS_PORT: u16 = 465;

/// True for `localhost` and the loopback addresses.
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
                hello_name: "kairos.example".to_owned(),
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
