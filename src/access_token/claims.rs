//! What an access token says.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AccessTokenOptions;
use crate::domain::{AuthToken, SessionId, Timestamp};

/// The token is none of ours, or is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid")]
pub struct InvalidAccessToken;

/// What a token says of whoever shows it. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `jti`: names the token.
    pub id: Uuid,
    /// `sub`: who logged in.
    pub user: AuthToken,
    /// `sid`: the session.
    pub session: SessionId,
    /// `client_id`: the service that logged them in.
    pub caller: Arc<str>,
    /// `iat`: when it was signed.
    pub issued_at: Timestamp,
    /// `nbf`: from when on it is good.
    pub not_before: Timestamp,
    /// `exp`: from when on it is not.
    pub expires_at: Timestamp,
}

impl AccessClaims {
    /// Of a token that is signed now. How long it lasts is decided when it is signed.
    #[must_use]
    pub fn new(id: Uuid, user: AuthToken, session: SessionId, caller: Arc<str>, now: Timestamp) -> Self {
        let now = now.whole_seconds();
        Self { id, user, session, caller, issued_at: now, not_before: now, expires_at: now }
    }
}

/// The claims on the wire. Each must be there, once, and of its type: a time that is a text or has a fraction is none.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
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
            exp: seconds(claims.expires_at),
            nbf: seconds(claims.not_before),
            iat: seconds(claims.issued_at),
            jti: claims.id.hyphenated().to_string(),
            sid: claims.session.to_string(),
            client_id: claims.caller.to_string(),
        }
    }
}

impl TryFrom<Claims> for AccessClaims {
    type Error = InvalidAccessToken;

    fn try_from(claims: Claims) -> Result<Self, InvalidAccessToken> {
        Ok(Self {
            id: Uuid::try_parse(&claims.jti).map_err(|_| InvalidAccessToken)?,
            user: AuthToken::parse(&claims.sub).map_err(|_| InvalidAccessToken)?,
            session: SessionId::parse(&claims.sid).map_err(|_| InvalidAccessToken)?,
            caller: claims.client_id.into(),
            issued_at: moment(claims.iat),
            not_before: moment(claims.nbf),
            expires_at: moment(claims.exp),
        })
    }
}

/// Seconds since 1970; times before it do not occur.
fn seconds(at: Timestamp) -> u64 {
    at.since(Timestamp::from_unix_micros(0)).as_secs()
}

fn moment(seconds: u64) -> Timestamp {
    Timestamp::from_unix_micros(0).plus(Duration::from_secs(seconds))
}
