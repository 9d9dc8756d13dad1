//! The mails that the service sends.

/// Which mail; each kind has its templates in `templates/mail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailKind {
    /// The link that proves an address.
    VerifyEmail,
}

/// The text names no mail that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of mail")]
pub struct UnknownMailKind;

impl MailKind {
    /// The name in the database; stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
        }
    }

    /// Reads the name in the database.
    ///
    /// # Errors
    /// [`UnknownMailKind`] for any other text, as a later release may have written.
    pub fn parse(text: &str) -> Result<Self, UnknownMailKind> {
        match text {
            "verify_email" => Ok(Self::VerifyEmail),
            _ => Err(UnknownMailKind),
        }
    }
}
