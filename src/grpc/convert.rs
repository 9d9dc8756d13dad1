//! Conversion of domain values into protobuf messages.

use crate::{
    accounts::IssuedTokens,
    callers::UserFields,
    domain::{ClientAgent, MailToken, Session, SessionId, Timestamp, User},
    proto::{self, UserState},
};

/// Converts a user. Fields that the caller may not see are left at their default, which proto3 does not send.
pub(super) fn user(user: User, visible: UserFields) -> proto::User {
    let state = if visible.state { user_state(&user) } else { UserState::Unspecified };
    proto::User {
        auth_token: user.auth_token.to_string(),
        username: if visible.username { user.username.into_string() } else { String::new() },
        email: if visible.email { user.email.into_string() } else { String::new() },
        is_verified: visible.is_verified && user.is_verified,
        created_at: visible.created_at.then(|| timestamp(user.created_at)),
        updated_at: visible.updated_at.then(|| timestamp(user.updated_at)),
        state: state.into(),
    }
}

/// Returns the state of a user.
const fn user_state(user: &User) -> UserState {
    match (user.is_disabled, user.is_verified) {
        (true, _) => UserState::Disabled,
        (false, true) => UserState::Active,
        (false, false) => UserState::Unverified,
    }
}

/// Converts the tokens of a login or a refresh.
pub(super) fn session_tokens(tokens: &IssuedTokens) -> proto::SessionTokens {
    proto::SessionTokens {
        session_id: tokens.session.to_string(),
        access_token: tokens.access_token.expose().to_owned(),
        access_token_expires_at: Some(timestamp(tokens.access_expires_at)),
        refresh_token: tokens.refresh_token.expose(),
        refresh_token_expires_at: Some(timestamp(tokens.refresh_expires_at)),
    }
}

/// Converts a session. `current` is the session of the access token of the request.
pub(super) fn session(session: &Session, current: SessionId) -> proto::Session {
    proto::Session {
        session_id: session.id.to_string(),
        caller: session.caller.to_string(),
        client_ip: session.client.map(|client| client.to_string()).unwrap_or_default(),
        client_agent: session.agent.as_ref().map(ClientAgent::as_str).unwrap_or_default().to_owned(),
        created_at: Some(timestamp(session.created_at)),
        refreshed_at: Some(timestamp(session.refreshed_at)),
        is_current: session.id == current,
    }
}

/// Converts the token of a link that the caller mails itself; an empty string if there is none.
pub(super) fn mail_token(token: Option<MailToken>) -> String {
    token.map(|token| token.to_link_text()).unwrap_or_default()
}

/// Converts a count; one above the maximum of an `int32` becomes that maximum.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Converts a time, with microsecond precision.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.unix_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000);
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: nanos.expect("the nanoseconds of less than a second fit into an i32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_before_and_after_1970_keep_their_microseconds() {
        let converted = |micros| {
            let at = timestamp(Timestamp::from_unix_micros(micros));
            (at.seconds, at.nanos)
        };
        assert_eq!(converted(1_700_000_000_123_456), (1_700_000_000, 123_456_000));
        assert_eq!(converted(-1), (-1, 999_999_000));
    }
}
