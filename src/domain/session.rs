//! A login that lasts.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::{AuthToken, ClientAddress, ClientAgent, Timestamp};

/// Names a session; the `sid` of its access tokens. No secret: knowing it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(Uuid);

/// The text names no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID, as a session's id is")]
pub struct InvalidSessionId;

impl SessionId {
    /// A new one from 16 random bytes.
    #[must_use]
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The id that the database holds.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// Reads the lower-case hyphenated form.
    ///
    /// # Errors
    /// [`InvalidSessionId`] for any other text: ids come from this service and are passed on as they are.
    pub fn parse(text: &str) -> Result<Self, InvalidSessionId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidSessionId)?;
        if id.hyphenated().to_string() == text { Ok(Self(id)) } else { Err(InvalidSessionId) }
    }

    /// The id for the database.
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

/// A login that lasts, from the first refresh token to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What names it.
    pub id: SessionId,
    /// Whose it is.
    pub user: AuthToken,
    /// The service that logged them in, and the only one that may refresh it.
    pub caller: Arc<str>,
    /// The end user's address when they logged in, where it is known.
    pub client: Option<ClientAddress>,
    /// The end user's program when they logged in, where it is known.
    pub agent: Option<ClientAgent>,
    /// When they logged in.
    pub created_at: Timestamp,
    /// When the live refresh token was given out.
    pub refreshed_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let id = SessionId::from_random([0xab; 16]);
        let text = id.to_string();
        assert_eq!(SessionId::parse(&text), Ok(id));
        for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), String::new()] {
            assert_eq!(SessionId::parse(&other), Err(InvalidSessionId), "{other}");
        }
    }
}
