//! The two destinations of mails: an SMTP server and a folder.

use std::path::PathBuf;

use lettre::Message;

use super::{
    attempt::DeliveryOutcome,
    error::MailError,
    folder,
    smtp::{Smtp, SmtpOptions},
};
use crate::{publish, store::OutgoingMail};

/// The destination of mails.
pub struct Transport(Destination);

enum Destination {
    Folder(PathBuf),
    Smtp(Box<Smtp>),
}

impl Transport {
    /// Creates a transport that writes files to a folder; the first mail creates the folder. Deletes the
    /// unfinished files of killed runs in it.
    #[must_use]
    pub fn folder(path: PathBuf) -> Self {
        publish::remove_leftovers(&path);
        Self(Destination::Folder(path))
    }

    /// Creates a transport that sends to an SMTP server.
    ///
    /// # Errors
    /// [`MailError::Tls`] if TLS cannot be configured, for example because the trusted roots cannot be read.
    pub fn smtp(options: SmtpOptions) -> Result<Self, MailError> {
        Ok(Self(Destination::Smtp(Box::new(Smtp::new(options)?))))
    }

    /// Connects to the SMTP server as for a mail, with TLS and the user if there is one, and sends no mail. A
    /// folder needs no connection.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub async fn connect(&self) -> Result<(), String> {
        match &self.0 {
            Destination::Folder(_) => Ok(()),
            Destination::Smtp(smtp) => smtp.check().await,
        }
    }

    /// Delivers one mail.
    pub(super) async fn send(&self, mail: &OutgoingMail, message: &Message) -> DeliveryOutcome {
        match &self.0 {
            Destination::Folder(path) => folder::write(path, mail, message.formatted()).await,
            Destination::Smtp(smtp) => smtp.send(message).await,
        }
    }
}
