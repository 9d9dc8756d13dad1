//! The mails that the service sends.

use super::MailTokenPurpose;

/// Declares the kinds with their names.
macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $kind:ident = $name:literal, )+) => {
        /// Which mail; each kind has its templates in `templates/mail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MailKind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl MailKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The name in the database, and of the templates; stable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

kinds! {
    /// The link that proves an address.
    VerifyEmail = "verify_email",
    /// The link that lets somebody choose a new password.
    ResetPassword = "reset_password",
    /// To a new address: the link that makes it the account's.
    ConfirmEmailChange = "confirm_email_change",
    /// To the old address: another is to take its place.
    EmailChangeRequested = "email_change_requested",
    /// To the old address: another has taken its place.
    EmailChanged = "email_changed",
    /// The password was changed or reset.
    PasswordChanged = "password_changed",
    /// The username was changed.
    UsernameChanged = "username_changed",
    /// Somebody tried to register with the address of an account.
    RegistrationAttempted = "registration_attempted",
}

/// The text names no mail that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of mail")]
pub struct UnknownMailKind;

impl MailKind {
    /// Reads the name in the database.
    ///
    /// # Errors
    /// [`UnknownMailKind`] for any other text, as a later release may have written.
    pub fn parse(text: &str) -> Result<Self, UnknownMailKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownMailKind)
    }

    /// What the token in its link is for; nothing where there is no link: the mail only tells of something.
    #[must_use]
    pub const fn purpose(self) -> Option<MailTokenPurpose> {
        match self {
            Self::VerifyEmail => Some(MailTokenPurpose::VerifyEmail),
            Self::ResetPassword => Some(MailTokenPurpose::ResetPassword),
            Self::ConfirmEmailChange => Some(MailTokenPurpose::ChangeEmail),
            Self::EmailChangeRequested
            | Self::EmailChanged
            | Self::PasswordChanged
            | Self::UsernameChanged
            | Self::RegistrationAttempted => None,
        }
    }

    /// The mail whose link is for this.
    #[must_use]
    pub const fn of_purpose(purpose: MailTokenPurpose) -> Self {
        match purpose {
            MailTokenPurpose::VerifyEmail => Self::VerifyEmail,
            MailTokenPurpose::ResetPassword => Self::ResetPassword,
            MailTokenPurpose::ChangeEmail => Self::ConfirmEmailChange,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_each_purpose_has_its_mail() {
        for kind in MailKind::ALL {
            assert_eq!(MailKind::parse(kind.as_str()), Ok(*kind));
        }
        assert_eq!(MailKind::parse("VERIFY_EMAIL"), Err(UnknownMailKind));
        for purpose in MailTokenPurpose::ALL {
            assert_eq!(MailKind::of_purpose(purpose).purpose(), Some(purpose));
        }
    }
}
