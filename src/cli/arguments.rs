//! Parses the arguments that several commands have.

use super::Failure;
use crate::{
    accounts::UserKey,
    config::{RETENTION_MILLIS_MAX, Span, Value},
    domain::{AuthToken, Email, Timestamp, Username},
};

/// Parses the time of a flag: an RFC 3339 time, or a duration before `now`. `None` if the flag was not given.
pub(super) fn parse_time(
    flag: &str,
    text: Option<&str>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let ago = |text| Span::<0, RETENTION_MILLIS_MAX>::parse(text).map(|ago| now.minus(ago.get()));
    let parsed = Timestamp::parse(text).or_else(|| ago(text));
    let expected = || {
        format!(
            "{flag}: expected a time such as 2026-11-24T08:00:00Z or 2h for two hours ago, not \"{text}\""
        )
    };
    parsed.map(Some).ok_or_else(expected)
}

/// Parses the email, `auth_token` or username of a user. A text with an @ is an email, since a username never
/// contains an @. Any other text is an `auth_token` if it is a UUID, and otherwise a username.
pub(super) fn parse_user_key(text: &str) -> Result<UserKey, Failure> {
    if text.contains('@') {
        return Email::parse(text).map(UserKey::Email).map_err(|rule| format!("the email {rule}"));
    }
    match AuthToken::parse(text) {
        Ok(token) => Ok(UserKey::AuthToken(token)),
        Err(_) => Username::parse(text).map(UserKey::Username).map_err(|rule| format!("the username {rule}")),
    }
}
