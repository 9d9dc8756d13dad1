//! Why a verb was refused, and how it breaks.

use std::time::Duration;

use crate::{
    access_token::NoSigningKey,
    password::HashingError,
    store::{Cause, Constraint, StoreError},
};

/// How long a caller who met a full queue of the store had best wait: such queues empty within milliseconds.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an account verb did not do what it was asked; nothing was changed, save where a variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// Another account has this email.
    #[error("another account already uses this email")]
    EmailTaken,
    /// Another account has this username, or one that compares equal.
    #[error("another account already uses this username")]
    UsernameTaken,
    /// The request id was used within 24 h for another email or username.
    #[error("this request id was used for another registration")]
    RequestIdReused,
    /// No account has this email, or its password is another one: the caller must not learn which.
    #[error("the email or the password is wrong")]
    InvalidCredentials,
    /// The password is right, and the address still to be proven.
    #[error("the email has not been verified")]
    EmailNotVerified,
    /// An operator keeps the user out; of a login, told only after the right password.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The mailed token is unknown, expired, void or for another purpose.
    #[error("the link is not valid")]
    InvalidToken,
    /// The address has been proven before.
    #[error("the email has already been verified")]
    EmailAlreadyVerified,
    /// The refresh token is none, or its session has ended; if it was used before, its session has ended now.
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    /// The access token is none, has expired, or its session has ended.
    #[error("the access token is not valid")]
    InvalidAccessToken,
    /// The user has no session of this id.
    #[error("there is no such session")]
    SessionNotFound,
    /// Nobody has this `auth_token`, email or username.
    #[error("there is no such user")]
    UserNotFound,
    /// Too many wrong passwords, here or everywhere; nothing was checked.
    #[error("too many attempts; try again in {retry_after:?}")]
    TooManyAttempts {
        /// When the next may be made.
        retry_after: Duration,
    },
    /// A queue is full.
    #[error("the service is busy; try again in {retry_after:?}")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The database cannot be reached; after a write it is unknown whether it was done.
    #[error("the database is not available")]
    StoreUnavailable(#[source] Cause),
    /// A defect of the service.
    #[error("internal error")]
    Internal(#[source] Cause),
}

impl AccountError {
    /// The stable reason of a decision, as `error_reason.proto` has it; nothing for what broke or had no room.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::EmailTaken => Some("EMAIL_ALREADY_EXISTS"),
            Self::UsernameTaken => Some("USERNAME_ALREADY_EXISTS"),
            Self::RequestIdReused => Some("INVALID_FIELDS"),
            Self::InvalidCredentials => Some("INVALID_CREDENTIALS"),
            Self::EmailNotVerified => Some("EMAIL_NOT_VERIFIED"),
            Self::AccountDisabled => Some("ACCOUNT_DISABLED"),
            Self::InvalidToken => Some("INVALID_TOKEN"),
            Self::EmailAlreadyVerified => Some("EMAIL_ALREADY_VERIFIED"),
            Self::InvalidRefreshToken => Some("INVALID_REFRESH_TOKEN"),
            Self::InvalidAccessToken => Some("INVALID_ACCESS_TOKEN"),
            Self::SessionNotFound => Some("SESSION_NOT_FOUND"),
            Self::UserNotFound => Some("USER_NOT_FOUND"),
            Self::TooManyAttempts { .. } => Some("TOO_MANY_ATTEMPTS"),
            Self::Overloaded { .. } | Self::StoreUnavailable(_) | Self::Internal(_) => None,
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotUnique(Constraint::UserEmail) => Self::EmailTaken,
            StoreError::NotUnique(Constraint::UserUsername) => Self::UsernameTaken,
            StoreError::NotUnique(Constraint::RegistrationRequest) => Self::RequestIdReused,
            StoreError::Unavailable(cause) => Self::StoreUnavailable(cause),
            StoreError::Overloaded => Self::Overloaded { retry_after: STORE_RETRY_AFTER },
            StoreError::Corrupt { .. } => Self::Internal(Cause::new(error)),
            StoreError::Internal(cause) => Self::Internal(cause),
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
            HashingError::QueueFull { retry_after } => Self::Overloaded { retry_after },
            HashingError::Stopped | HashingError::Broken => Self::Internal(Cause::new(error)),
        }
    }
}
