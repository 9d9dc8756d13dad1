//! The errors of this module.

use std::error::Error;

/// Mails cannot be sent, or one mail cannot be composed.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mail library rejects an address or a part of the message.
    #[error("the mail cannot be composed")]
    Invalid(#[source] Box<dyn Error + Send + Sync>),
    /// TLS cannot be set up.
    #[error("TLS to the SMTP server cannot be set up")]
    Tls(#[source] lettre::transport::smtp::Error),
}

impl MailError {
    /// Wraps an error of lettre.
    pub(super) fn invalid(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Invalid(Box::new(source))
    }
}
