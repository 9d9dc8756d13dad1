//! The kinds of mail that the service sends.

use super::MailTokenPurpose;

/// Declares the kinds with their names.
macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $kind:ident = $name:literal, )+) => {
        /// A kind of mail, which has its templates in `templates/mail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MailKind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl MailKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Returns the name of this kind in the database and of its templates. Stable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

kinds! {
    /// The link that verifies an email.
    VerifyEmail = "verify_email",
    /// The link to choose a new password.
    ResetPassword = "reset_password",
    /// To the new email: the link that makes it the account's email.
    ConfirmEmailChange = "confirm_email_change",
    /// To the old email: a change to another email was requested.
    EmailChangeRequested = "email_change_requested",
    /// To an email that the account no longer has, because its owner undid the change to it.
    EmailChanged = "email_changed",
    /// To the old email: the account has another email now, with the link that undoes the change.
    EmailReplaced = "email_replaced",
    /// To the old email: the change to another email was undone.
    EmailRestored = "email_restored",
    /// The password was changed or reset.
    PasswordChanged = "password_changed",
    /// The username was changed.
    UsernameChanged = "username_changed",
    /// A registration was attempted with the email of an account.
    RegistrationAttempted = "registration_attempted",
    /// The account was deleted, by its user or by an operator.
    AccountDeleted = "account_deleted",
    /// An operator disabled the account.
    AccountDisabled = "account_disabled",
    /// There was a login from a network address that was not known for the account.
    NewAddressLogin = "new_address_login",
}

/// What causes mails of a kind. Mails to one mailbox are counted separately for each cause, so that other
/// clients cannot use up the mails that the owner of the mailbox needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailCause {
    /// Any client that enters the address: notices of attempted registrations, links to confirm a new email.
    EnteredAddress,
    /// Any client that requests a link for the account: to verify its email, or to reset its password.
    LinkRequest,
    /// Only what the account's user or an operator does: a change, a request with the password, a login.
    AccountEvent,
    /// A confirmed change of the account's email. The mail has the link that undoes it, so an intruder must
    /// not be able to delay it by other changes.
    EmailChange,
}

/// The text is not a kind of mail in this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mail kind")]
pub struct UnknownMailKind;

impl MailKind {
    /// Reads the name in the database.
    ///
    /// # Errors
    /// [`UnknownMailKind`] for any other text, such as one that a later release has written.
    pub fn parse(text: &str) -> Result<Self, UnknownMailKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownMailKind)
    }

    /// Returns the purpose of the link in the mail; `None` for a mail without a link, which only notifies its
    /// recipient.
    #[must_use]
    pub const fn purpose(self) -> Option<MailTokenPurpose> {
        match self {
            Self::VerifyEmail => Some(MailTokenPurpose::VerifyEmail),
            Self::ResetPassword => Some(MailTokenPurpose::ResetPassword),
            Self::ConfirmEmailChange => Some(MailTokenPurpose::ChangeEmail),
            Self::EmailReplaced => Some(MailTokenPurpose::UndoEmailChange),
            Self::EmailChangeRequested
            | Self::EmailChanged
            | Self::EmailRestored
            | Self::PasswordChanged
            | Self::UsernameChanged
            | Self::RegistrationAttempted
            | Self::AccountDeleted
            | Self::AccountDisabled
            | Self::NewAddressLogin => None,
        }
    }

    /// Returns what causes mails of this kind.
    #[must_use]
    pub const fn cause(self) -> MailCause {
        match self {
            Self::RegistrationAttempted | Self::ConfirmEmailChange => MailCause::EnteredAddress,
            Self::VerifyEmail | Self::ResetPassword => MailCause::LinkRequest,
            Self::EmailChangeRequested
            | Self::EmailChanged
            | Self::EmailRestored
            | Self::PasswordChanged
            | Self::UsernameChanged
            | Self::AccountDeleted
            | Self::AccountDisabled
            | Self::NewAddressLogin => MailCause::AccountEvent,
            Self::EmailReplaced => MailCause::EmailChange,
        }
    }

    /// Returns the limit of mails in a day for this kind, of a limit for all mails together. A quarter is
    /// kept for mails to users: a flood of registrations must not stop the mails that they need.
    #[must_use]
    pub const fn daily_max(self, total: u32) -> u32 {
        match self {
            Self::VerifyEmail | Self::ConfirmEmailChange | Self::RegistrationAttempted => total - total / 4,
            _ => total,
        }
    }

    /// Returns the kind of mail that carries links for this purpose.
    #[must_use]
    pub const fn of_purpose(purpose: MailTokenPurpose) -> Self {
        match purpose {
            MailTokenPurpose::VerifyEmail => Self::VerifyEmail,
            MailTokenPurpose::ResetPassword => Self::ResetPassword,
            MailTokenPurpose::ChangeEmail => Self::ConfirmEmailChange,
            MailTokenPurpose::UndoEmailChange => Self::EmailReplaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_each_purpose_has_its_mail() {
        for kind in MailKind::ALL {
            assert_eq!(MailKind::parse(kind.as_str()), Ok(*kind));
        }
        assert_eq!(MailKind::parse("VERIFY_EMAIL"), Err(UnknownMailKind));
        for purpose in MailTokenPurpose::ALL {
            assert_eq!(MailKind::of_purpose(purpose).purpose(), Some(purpose));
        }
    }
}
