//! The errors of account operations: refusals and failures.

use std::time::Duration;

use crate::{
    access_token::NoSigningKey,
    database::{Cause, Constraint, DatabaseError},
    domain::PasswordRefusal,
    password::{AdmitError, HashingError},
};

/// Retry delay for a caller when a queue of the store is full. Such a queue empties within milliseconds.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an account operation failed. Nothing was changed, unless a variant states otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// Another account has this email.
    #[error("another account already uses this email")]
    EmailTaken,
    /// Another account has this username, or one that compares equal.
    #[error("another account already uses this username")]
    UsernameTaken,
    /// The request id was used within the last 24 h for another email or username.
    #[error("this request id was used for another registration")]
    RequestIdReused,
    /// No account has this email, or the password is wrong. The caller must not learn which of the two.
    #[error("the email or the password is wrong")]
    InvalidCredentials,
    /// The current password of the user who acts is wrong.
    #[error("the current password is wrong")]
    WrongCurrentPassword,
    /// The password is correct, but the email is not verified.
    #[error("the email has not been verified")]
    EmailNotVerified,
    /// An operator has disabled the account. A login returns this only after the correct password.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The mailed token is unknown, used, expired, void or for another purpose.
    #[error("the link is not valid")]
    InvalidToken,
    /// The email is verified already.
    #[error("the email has already been verified")]
    EmailAlreadyVerified,
    /// The refresh token is unknown or another caller's, or its session has expired or was revoked. If it
    /// had been replaced before, this call has revoked its session.
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    /// The access token is malformed, has expired or was not signed by a current key, or its session has
    /// expired or was revoked.
    #[error("the access token is not valid")]
    InvalidAccessToken,
    /// The user has no session with this id.
    #[error("there is no such session")]
    SessionNotFound,
    /// No user has this `auth_token`, email or username.
    #[error("there is no such user")]
    UserNotFound,
    /// A limit on password attempts, new passwords, registrations, requested links or changes of an account
    /// is reached. The step that it limits was not carried out.
    #[error("too many attempts; try again in {retry_after:?}")]
    TooManyAttempts {
        /// Time until the next attempt is admitted.
        retry_after: Duration,
    },
    /// A queue is full, too many calls run, or a password waited too long for a hashing thread.
    #[error("the service is busy; try again in {retry_after:?}")]
    Overloaded {
        /// Time after which a retry is worthwhile.
        retry_after: Duration,
    },
    /// The database is unavailable. If this was a write, it is unknown whether it was committed.
    #[error("the database is not available")]
    StoreUnavailable(#[source] Cause),
    /// A page of the database cannot be read or written. A retry does not help.
    #[error("the database is damaged")]
    StoreDamaged(#[source] Cause),
    /// A defect of the service.
    #[error("internal error")]
    Internal(#[source] Cause),
}

impl AccountError {
    /// Returns the stable reason of a refusal, as `error_reason.proto` defines it; `None` for a failure and
    /// for [`AccountError::Overloaded`].
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::EmailTaken => Some("EMAIL_ALREADY_EXISTS"),
            Self::UsernameTaken => Some("USERNAME_ALREADY_EXISTS"),
            Self::RequestIdReused => Some("INVALID_FIELDS"),
            Self::InvalidCredentials | Self::WrongCurrentPassword => Some("INVALID_CREDENTIALS"),
            Self::EmailNotVerified => Some("EMAIL_NOT_VERIFIED"),
            Self::AccountDisabled => Some("ACCOUNT_DISABLED"),
            Self::InvalidToken => Some("INVALID_TOKEN"),
            Self::EmailAlreadyVerified => Some("EMAIL_ALREADY_VERIFIED"),
            Self::InvalidRefreshToken => Some("INVALID_REFRESH_TOKEN"),
            Self::InvalidAccessToken => Some("INVALID_ACCESS_TOKEN"),
            Self::SessionNotFound => Some("SESSION_NOT_FOUND"),
            Self::UserNotFound => Some("USER_NOT_FOUND"),
            Self::TooManyAttempts { .. } => Some("TOO_MANY_ATTEMPTS"),
            Self::Overloaded { .. }
            | Self::StoreUnavailable(_)
            | Self::StoreDamaged(_)
            | Self::Internal(_) => None,
        }
    }

    /// Returns the reason of a refusal or a failure for the audit trail, as the API returns it.
    #[must_use]
    pub fn audit_reason(&self) -> &'static str {
        self.reason().unwrap_or(match self {
            Self::Overloaded { .. } => "OVERLOADED",
            Self::StoreUnavailable(_) => "STORE_UNAVAILABLE",
            _ => "INTERNAL",
        })
    }
}

impl From<DatabaseError> for AccountError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::NotUnique(Constraint::UserEmail) => Self::EmailTaken,
            DatabaseError::NotUnique(Constraint::UserUsername) => Self::UsernameTaken,
            DatabaseError::NotUnique(Constraint::RegistrationRequest) => Self::RequestIdReused,
            DatabaseError::Unavailable(cause) => Self::StoreUnavailable(cause),
            DatabaseError::Damaged(cause) => Self::StoreDamaged(cause),
            DatabaseError::Overloaded => Self::Overloaded { retry_after: STORE_RETRY_AFTER },
            DatabaseError::Corrupt { .. } => Self::Internal(Cause::new(error)),
            DatabaseError::Internal(cause) => Self::Internal(cause),
        }
    }
}

impl From<NoSigningKey> for AccountError {
    fn from(error: NoSigningKey) -> Self {
        Self::Internal(Cause::new(error))
    }
}

impl From<HashingError> for AccountError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::QueueFull { retry_after } | HashingError::NotDue { retry_after } => {
                Self::Overloaded { retry_after }
            }
            HashingError::Stopped | HashingError::Broken => Self::Internal(Cause::new(error)),
        }
    }
}

/// Why a new password was not admitted or not set.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NewPasswordError {
    /// The password breaks a rule of the policy.
    #[error(transparent)]
    Refused(#[from] PasswordRefusal),
    /// The operation failed.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl NewPasswordError {
    /// Changes the error of the operation, if it is one.
    #[must_use]
    pub(super) fn map_account(self, change: impl FnOnce(AccountError) -> AccountError) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal),
            Self::Account(error) => Self::Account(change(error)),
        }
    }
}

impl From<AdmitError> for NewPasswordError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused(refusal) => Self::Refused(refusal),
            AdmitError::Hashing(error) => Self::Account(error.into()),
        }
    }
}

impl From<DatabaseError> for NewPasswordError {
    fn from(error: DatabaseError) -> Self {
        Self::Account(error.into())
    }
}
