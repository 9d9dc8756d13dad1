//! Sessions and their ids.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::{AuthToken, ClientAddress, ClientAgent, Timestamp};

/// The id of a session, and the `sid` claim of its access tokens. It is no secret and grants no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(Uuid);

/// The text is not the id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID in lower case with hyphens")]
pub struct InvalidSessionId;

impl SessionId {
    /// Creates an id from 16 random bytes.
    #[must_use]
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Wraps an id from the database.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// Reads the lower-case form with hyphens.
    ///
    /// # Errors
    /// [`InvalidSessionId`] for any other text: clients return an id exactly as this service has sent it.
    pub fn parse(text: &str) -> Result<Self, InvalidSessionId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidSessionId)?;
        if id.hyphenated().to_string() == text { Ok(Self(id)) } else { Err(InvalidSessionId) }
    }

    /// Returns the id for the database.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A session: it begins with a login and lasts until it expires or is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The id of the session.
    pub id: SessionId,
    /// The user of the session.
    pub user: AuthToken,
    /// The service that logged the user in. No other service may refresh the session.
    pub caller: Arc<str>,
    /// The end user's address at the login, where it is known.
    pub client: Option<ClientAddress>,
    /// The end user's program at the login, where it is known.
    pub agent: Option<ClientAgent>,
    /// The time of the login.
    pub created_at: Timestamp,
    /// The time at which the current refresh token was issued.
    pub refreshed_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_exactly_one_text() {
        let id = SessionId::from_random([0xab; 16]);
        let text = id.to_string();
        assert_eq!(SessionId::parse(&text), Ok(id));
        for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), String::new()] {
            assert_eq!(SessionId::parse(&other), Err(InvalidSessionId), "{other}");
        }
    }
}
