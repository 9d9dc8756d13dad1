//! The arguments that several commands have, with the parsers that clap calls.

use std::{str::FromStr, time::Duration};

use super::{Failure, reason};
use crate::{
    accounts::{AccountError, UserKey},
    config::{RETENTION_MILLIS_MAX, Span, Value},
    domain::{AuthToken, Email, Timestamp, Username},
};

/// The time of a flag.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeFlag {
    At(Timestamp),
    /// A duration before the start of the command.
    Ago(Duration),
}

impl FromStr for TimeFlag {
    type Err = &'static str;

    /// Parses an RFC 3339 time or a duration.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || Span::<0, RETENTION_MILLIS_MAX>::parse(text).map(|ago| Self::Ago(ago.get()));
        let parsed = Timestamp::parse(text).map(Self::At).or_else(ago);
        parsed.ok_or("expected a time such as 2026-11-24T08:00:00Z, or 2h for two hours ago")
    }
}

impl TimeFlag {
    /// Returns the time, for a command that started at `now`.
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

/// Formats the error of an operation on the user with this key.
pub(super) fn user_failure(key: &UserKey, error: AccountError) -> Failure {
    let AccountError::UserNotFound = error else { return reason(error) };
    match key {
        UserKey::AuthToken(token) => format!("no user has the auth_token {token}"),
        UserKey::Email(email) => format!("no user has the email {:?}", email.as_str()),
        UserKey::Username(username) => format!("no user has the username {:?}", username.as_str()),
    }
}

/// Parses the email, `auth_token` or username of a user. A text with an @ is an email, since a username never
/// contains an @. Any other text is an `auth_token` if it is a UUID, and otherwise a username.
pub(super) fn parse_user_key(text: &str) -> Result<UserKey, String> {
    if text.contains('@') {
        return Email::parse(text).map(UserKey::Email).map_err(|rule| format!("the email {rule}"));
    }
    match AuthToken::parse(text) {
        Ok(token) => Ok(UserKey::AuthToken(token)),
        Err(_) => Username::parse(text).map(UserKey::Username).map_err(|rule| format!("the username {rule}")),
    }
}
