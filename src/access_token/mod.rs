//! Signs and verifies access tokens. A service that has the public keys authenticates a user with a token,
//! without a call.
//!
//! A token is a JWT in the profile of RFC 9068, signed with Ed25519 (RFC 8037). The key determines the
//! algorithm; the header of a token does not (RFC 8725, section 3.1). This module handles keys and claims
//! only: it does not store or rotate keys, and does not check whether a session was revoked. Start at
//! [`AccessTokens`].

mod claims;
mod crypto;
mod disagreement;
mod key;
mod options;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, encode,
    errors::{Error as JwtError, ErrorKind},
};

use self::{claims::Claims, disagreement::Disagreements, key::PreparedKey};
pub use self::{
    claims::{AccessClaims, InvalidAccessToken},
    key::{KeyId, PublicKey, SigningKey},
    options::{AccessTokenOptions, ISSUED_AHEAD_MAX},
};
use crate::{
    domain::Timestamp,
    metrics::{Registry, Unit, register_gauge},
};

/// The `typ` of the header (RFC 9068, section 2.1).
const TYPE: &str = "at+jwt";

/// The longest token that is decoded, in bytes. A token of this service has about 500.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Signs and verifies access tokens. Clones share the keys.
#[derive(Clone)]
pub struct AccessTokens {
    options: Arc<AccessTokenOptions>,
    keys: Arc<RwLock<Arc<[PreparedKey]>>>,
    disagreements: Arc<Disagreements>,
}

/// A signed access token. It is a bearer credential: its holder acts as the user until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// Returns the token for the caller that logged the user in.
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

/// No key may sign at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key signs access tokens at this time")]
pub struct NoSigningKey;

impl AccessTokens {
    /// Creates an instance without keys.
    #[must_use]
    pub fn new(options: AccessTokenOptions) -> Self {
        crypto::install();
        Self { options: Arc::new(options), keys: Arc::default(), disagreements: Arc::default() }
    }

    /// Returns the lifetime of a token.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.options.lifetime
    }

    /// Replaces all keys. The key with the earliest `signs_from` also signs before that time: if the clock
    /// was ahead when the key was created, no user could otherwise log in until that time.
    pub fn replace_keys(&self, keys: &[SigningKey]) {
        let mut prepared: Vec<_> = keys.iter().map(PreparedKey::new).collect();
        if let Some(earliest) = prepared.iter_mut().min_by_key(|key| key.signs_from) {
            earliest.signs_from = Timestamp::from_unix_micros(i64::MIN);
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = prepared.into();
    }

    /// Adds the age of the key that signs to a registry. `now` returns the current time.
    pub fn register_metrics(
        &self,
        registry: &mut Registry,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) {
        let tokens = self.clone();
        register_gauge(
            registry,
            "signing_key_age",
            "Time for which the key that signs access tokens has been in use; NaN if no key signs",
            Some(Unit::Seconds),
            move || {
                let now = now();
                let keys = tokens.keys();
                signing_key(&keys, now).map_or(f64::NAN, |key| now.since(key.planned_from).as_secs_f64())
            },
        );
    }

    fn keys(&self) -> Arc<[PreparedKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the public keys that verify tokens at `now` or later. Keys that start to sign later are
    /// included, so that verifiers fetch them in advance.
    #[must_use]
    pub fn public_keys(&self, now: Timestamp) -> Vec<PublicKey> {
        self.keys().iter().filter(|key| !key.has_expired(now)).map(|key| key.public.clone()).collect()
    }

    /// Checks that a key signs tokens at `now`, so that users can log in.
    ///
    /// # Errors
    /// [`NoSigningKey`] otherwise.
    pub fn require_signing_key(&self, now: Timestamp) -> Result<(), NoSigningKey> {
        if self.keys().iter().any(|key| key.signs(now)) { Ok(()) } else { Err(NoSigningKey) }
    }

    /// Signs a token, and returns it with its claims. In these, `expires_at` is set.
    ///
    /// # Errors
    /// [`NoSigningKey`] if no key signs at `issued_at`.
    pub fn sign(&self, mut claims: AccessClaims) -> Result<(AccessToken, AccessClaims), NoSigningKey> {
        let now = claims.issued_at;
        let keys = self.keys();
        let key = signing_key(&keys, now).ok_or(NoSigningKey)?;
        // A token expires no later than its key.
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

    /// Returns the claims of a token if one of the keys signed it and it is valid at `now`.
    ///
    /// # Errors
    /// [`InvalidAccessToken`] otherwise. The error does not contain the reason, because the token may be an
    /// attacker's. If a key of this service signed the token, and its issuer, its audience or its time
    /// is wrong here, the reason is logged.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidAccessToken);
        }
        let header = decode_header(token).map_err(|_| InvalidAccessToken)?;
        // RFC 7515, section 4.1.11: `crit` lists extensions that a recipient must understand. No extension is
        // supported.
        if header.typ.as_deref() != Some(TYPE) || header.crit.is_some() {
            return Err(InvalidAccessToken);
        }
        let keys = self.keys();
        let key = keys.iter().find(|key| header.kid.as_deref() == Some(key.public.id.as_str()));
        // The clock of the instance that issued the token may be ahead, so its key may sign already.
        let latest_clock = now.plus(ISSUED_AHEAD_MAX);
        let key = key.filter(|key| key.verifies(latest_clock, now)).ok_or(InvalidAccessToken)?;
        let wire = decode::<Claims>(token, &key.decoding, &self.validation()).map_err(|error| {
            self.log_if_of_other_options(token, key, &error, now);
            InvalidAccessToken
        })?;
        let claims = AccessClaims::try_from(wire.claims)?;
        let has_started = claims.issued_at <= latest_clock && claims.not_before <= latest_clock;
        if !has_started {
            self.disagreements.log_clock(claims.issued_at.max(claims.not_before), now);
        }
        if has_started && now < claims.expires_at { Ok(claims) } else { Err(InvalidAccessToken) }
    }

    /// Logs that this key signed the token, if the error is that of its issuer or audience.
    fn log_if_of_other_options(&self, token: &str, key: &PreparedKey, error: &JwtError, now: Timestamp) {
        if !matches!(error.kind(), ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience) {
            return;
        }
        let mut validation = self.validation();
        (validation.iss, validation.validate_aud) = (None, false);
        if let Ok(wire) = decode::<Claims>(token, &key.decoding, &validation) {
            self.disagreements.log_options(&wire.claims, &self.options, now);
        }
    }

    /// True if this text looks like a token of this service and names a key that is not known here. Another
    /// instance may have signed it with a new key. The signature is not checked.
    #[must_use]
    pub fn lacks_key_of(&self, token: &str) -> bool {
        let header = Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX).map(decode_header);
        let Some(Ok(Header { kid: Some(kid), typ: Some(typ), .. })) = header else { return false };
        typ == TYPE && !self.keys().iter().any(|key| key.public.id.as_str() == kid)
    }

    /// Makes jsonwebtoken check the issuer, the audience and the required claims. [`Self::verify`] checks the
    /// times against its `now`.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        validation.validate_exp = false;
        validation
    }
}

/// Returns the key that signs at `now`.
fn signing_key(keys: &[PreparedKey], now: Timestamp) -> Option<&PreparedKey> {
    keys.iter().filter(|key| key.signs(now)).max_by_key(|key| key.signs_from)
}

#[cfg(test)]
mod tests;
