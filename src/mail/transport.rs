//! The two ways a mail leaves.

use std::{error::Error, path::PathBuf};

use lettre::Message;

use super::{
    attempt::Outcome,
    folder,
    smtp::{Smtp, SmtpOptions},
};
use crate::store::OutgoingMail;

/// Where mails go.
pub struct Transport(Way);

enum Way {
    Folder(PathBuf),
    Smtp(Box<Smtp>),
}

/// Why mails cannot be sent at all, or why one cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The sender, a recipient or a header is not what mail allows.
    #[error("the mail cannot be made")]
    Unfit(#[source] Box<dyn Error + Send + Sync>),
    /// TLS cannot be set up.
    #[error("TLS to the SMTP server cannot be set up")]
    Tls(#[source] lettre::transport::smtp::Error),
}

impl MailError {
    pub(super) fn unfit(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unfit(Box::new(source))
    }
}

impl Transport {
    /// Files in a folder, which is made when the first comes.
    #[must_use]
    pub const fn folder(path: PathBuf) -> Self {
        Self(Way::Folder(path))
    }

    /// An SMTP server.
    ///
    /// # Errors
    /// [`MailError::Tls`] when the trusted roots cannot be read.
    pub fn smtp(options: SmtpOptions) -> Result<Self, MailError> {
        Ok(Self(Way::Smtp(Box::new(Smtp::new(options)?))))
    }

    pub(super) async fn send(&self, mail: &OutgoingMail, message: &Message) -> Outcome {
        match &self.0 {
            Way::Folder(path) => folder::write(path, mail, &message.formatted()).await,
            Way::Smtp(smtp) => smtp.send(message).await,
        }
    }
}
