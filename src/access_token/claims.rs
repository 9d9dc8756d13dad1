//! The claims of an access token.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::options::AccessTokenOptions;
use crate::domain::{AuthToken, SessionId, Timestamp};

/// The access token is malformed, was not signed by this service for this audience, or is not valid at this
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid")]
pub struct InvalidAccessToken;

/// The claims of a verified or newly signed token. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `jti`: the ID of the token.
    pub id: Uuid,
    /// `sub`: the user that logged in.
    pub user: AuthToken,
    /// `sid`: the session.
    pub session: SessionId,
    /// `client_id`: the caller that logged the user in.
    pub caller: Arc<str>,
    /// `iat`: the time at which the token was signed.
    pub issued_at: Timestamp,
    /// `nbf`: the time from which the token is valid.
    pub not_before: Timestamp,
    /// `exp`: the time from which the token is no longer valid.
    pub expires_at: Timestamp,
}

impl AccessClaims {
    /// Creates the claims of a token that is issued at `now`.
    /// [`AccessTokens::sign`](super::AccessTokens::sign) sets `expires_at`.
    #[must_use]
    pub fn new(id: Uuid, user: AuthToken, session: SessionId, caller: Arc<str>, now: Timestamp) -> Self {
        let now = now.whole_seconds();
        Self { id, user, session, caller, issued_at: now, not_before: now, expires_at: now }
    }
}

/// The claims as JSON. Parsing fails if a claim is missing, occurs twice or has the wrong type; a time is an
/// integer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    sub: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    sid: String,
    client_id: String,
}

impl Claims {
    pub(super) fn new(claims: &AccessClaims, options: &AccessTokenOptions) -> Self {
        Self {
            iss: options.issuer.clone(),
            aud: options.audience.clone(),
            sub: claims.user.to_string(),
            exp: to_seconds(claims.expires_at),
            nbf: to_seconds(claims.not_before),
            iat: to_seconds(claims.issued_at),
            jti: claims.id.hyphenated().to_string(),
            sid: claims.session.to_string(),
            client_id: claims.caller.to_string(),
        }
    }

    /// Returns the time from which the token is no longer valid.
    pub(super) fn expires_at(&self) -> Timestamp {
        from_seconds(self.exp)
    }
}

impl TryFrom<Claims> for AccessClaims {
    type Error = InvalidAccessToken;

    fn try_from(claims: Claims) -> Result<Self, InvalidAccessToken> {
        let expires_at = claims.expires_at();
        Ok(Self {
            id: Uuid::try_parse(&claims.jti).map_err(|_| InvalidAccessToken)?,
            user: AuthToken::parse(&claims.sub).map_err(|_| InvalidAccessToken)?,
            session: SessionId::parse(&claims.sid).map_err(|_| InvalidAccessToken)?,
            caller: claims.client_id.into(),
            issued_at: from_seconds(claims.iat),
            not_before: from_seconds(claims.nbf),
            expires_at,
        })
    }
}

/// Returns the seconds since 1970. Times before 1970 do not occur.
fn to_seconds(at: Timestamp) -> u64 {
    at.since(Timestamp::from_unix_micros(0)).as_secs()
}

fn from_seconds(seconds: u64) -> Timestamp {
    Timestamp::from_unix_micros(0).plus(Duration::from_secs(seconds))
}
