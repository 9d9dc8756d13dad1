//! Access tokens: what a login proves, for some minutes, to whoever has the public keys.
//!
//! A JWT by the profile of RFC 9068, signed with Ed25519 (RFC 8037). The algorithm follows from the key and from nothing that a token
//! says (RFC 8725, section 3.1). This module knows keys and claims; where keys are kept and when they change is not known here, nor
//! whether a session still lasts. Start at [`AccessTokens`].

mod claims;
mod crypto;
mod key;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, encode};

use self::{claims::Claims, key::PreparedKey};
pub use self::{
    claims::{AccessClaims, InvalidAccessToken},
    key::{KeyId, PublicKey, SigningKey},
};
use crate::domain::Timestamp;

/// RFC 9068, section 2.1.
const TYPE: &str = "at+jwt";

/// Ours have some 500; longer texts are not even decoded.
const TOKEN_BYTES_MAX: usize = 4_096;

/// How far the clocks of two instances may differ: a token may be so young. None may be older than it says.
pub const SKEW_MAX: Duration = Duration::from_secs(30);

/// What stands in every token.
#[derive(Debug, Clone)]
pub struct AccessTokenOptions {
    /// `iss`: who gives them out.
    pub issuer: String,
    /// `aud`: for whom they are.
    pub audience: String,
    /// How long one is good for.
    pub lifetime: Duration,
}

/// Signs access tokens and verifies them. Clones share the keys.
#[derive(Clone)]
pub struct AccessTokens {
    options: Arc<AccessTokenOptions>,
    keys: Arc<RwLock<Arc<[PreparedKey]>>>,
}

/// A signed token: whoever has it acts as the user until it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// The token itself: for the caller who logged the user in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// There is no key that may sign now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key signs access tokens at this time")]
pub struct NoSigningKey;

impl AccessTokens {
    /// Knows no key yet.
    #[must_use]
    pub fn new(options: AccessTokenOptions) -> Self {
        crypto::install();
        Self { options: Arc::new(options), keys: Arc::default() }
    }

    /// How long a token is good for.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.options.lifetime
    }

    /// Knows these keys and no others from now on. The earliest of them signs at any time before it ends: if the clock was ahead when it was
    /// made, nobody could log in otherwise until that time has come again.
    pub fn replace_keys(&self, keys: &[SigningKey]) {
        let mut prepared: Vec<_> = keys.iter().map(PreparedKey::new).collect();
        if let Some(earliest) = prepared.iter_mut().min_by_key(|key| key.signs_from) {
            earliest.signs_from = Timestamp::from_unix_micros(i64::MIN);
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = prepared.into();
    }

    fn keys(&self) -> Arc<[PreparedKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys that tokens are verified with, those among them that will sign only later: whoever reads them now knows those too.
    #[must_use]
    pub fn public_keys(&self, now: Timestamp) -> Vec<PublicKey> {
        self.keys().iter().filter(|key| !key.has_ended(now)).map(|key| key.public.clone()).collect()
    }

    /// Signs a token; gives it and the claims in it.
    ///
    /// # Errors
    /// [`NoSigningKey`] when no key signs at this time.
    pub fn sign(&self, mut claims: AccessClaims) -> Result<(AccessToken, AccessClaims), NoSigningKey> {
        let now = claims.issued_at;
        let keys = self.keys();
        let signing = keys.iter().filter(|key| key.signs(now)).max_by_key(|key| key.signs_from);
        let key = signing.ok_or(NoSigningKey)?;
        // Never longer than its key verifies.
        let expires_at = now.plus(self.options.lifetime);
        claims.expires_at =
            key.verifies_until.map_or(expires_at, |until| until.min(expires_at)).whole_seconds();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.public.id.as_str().to_owned());
        let wire = Claims::new(&claims, &self.options);
        let token = encode(&header, &wire, &key.encoding).map_err(|_| NoSigningKey)?;
        Ok((AccessToken(token), claims))
    }

    /// What a token says, if one of the keys signed it and it is good now.
    ///
    /// # Errors
    /// [`InvalidAccessToken`] for anything else; why is nobody's business who did not sign it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidAccessToken);
        }
        let header = decode_header(token).map_err(|_| InvalidAccessToken)?;
        // RFC 7515, section 4.1.11: what must be understood and is not.
        if header.typ.as_deref() != Some(TYPE) || header.crit.is_some() {
            return Err(InvalidAccessToken);
        }
        let keys = self.keys();
        let key = keys.iter().find(|key| header.kid.as_deref() == Some(key.public.id.as_str()));
        let key = key.filter(|key| key.verifies(now.plus(SKEW_MAX), now)).ok_or(InvalidAccessToken)?;
        let wire =
            decode::<Claims>(token, &key.decoding, &self.validation()).map_err(|_| InvalidAccessToken)?;
        let claims = AccessClaims::try_from(wire.claims)?;
        let is_begun = claims.issued_at <= now.plus(SKEW_MAX) && claims.not_before <= now.plus(SKEW_MAX);
        if is_begun && now < claims.expires_at { Ok(claims) } else { Err(InvalidAccessToken) }
    }

    /// Issuer and audience; times are judged by our own clock.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        validation.validate_exp = false;
        validation
    }
}

#[cfg(test)]
mod tests;
