//! The user that an access token authenticates.

use std::fmt;

use crate::{
    access_token::AccessClaims,
    accounts::{AccountError, Accounts},
    domain::{AuditKind, Origin, SessionId, User},
    store::KnownSession,
};

/// A user authenticated by an access token whose session is live.
#[derive(Clone)]
pub struct ActingUser {
    /// The user in its current state.
    pub user: User,
    /// The session of the access token.
    pub session: SessionId,
}

impl fmt::Debug for ActingUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingUser").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Returns the user of this access token, if its session is live.
    ///
    /// # Errors
    /// [`AccountError::InvalidAccessToken`] or a database error.
    pub async fn authenticate(
        &self,
        access_token: &str,
        origin: &Origin,
    ) -> Result<ActingUser, AccountError> {
        let Some((_, acting)) = self.introspect(access_token).await? else {
            let event = self.deps.audit.event(AuditKind::AuthzFail, origin);
            return Err(self.deps.audit.queue_error(event, AccountError::InvalidAccessToken));
        };
        origin.note.set_user(acting.user.auth_token);
        Ok(acting)
    }

    /// Returns the claims and the user of an access token; `None` if the token is invalid or its session has
    /// expired or was revoked.
    ///
    /// # Errors
    /// A database error.
    pub async fn introspect(
        &self,
        access_token: &str,
    ) -> Result<Option<(AccessClaims, ActingUser)>, AccountError> {
        let (now, tokens) = (self.deps.env.clock.now(), self.deps.signing_keys.access_tokens());
        let mut verified = tokens.verify(access_token, now);
        if verified.is_err() && tokens.lacks_key_of(access_token) {
            self.deps.signing_keys.reload_for_unknown_key().await;
            verified = tokens.verify(access_token, now);
        }
        let Ok(claims) = verified else { return Ok(None) };
        let known = self.deps.store.find_session(claims.session, claims.user).await?;
        let is_live = |known: &KnownSession| self.options.sessions.is_live(known, now);
        Ok(known.filter(is_live).map(|known| {
            let acting = ActingUser { user: known.user, session: known.session.id };
            (claims, acting)
        }))
    }

    /// Does what [`Accounts::introspect`] does, for a caller that asks about the token. Records a token that
    /// is not valid.
    ///
    /// # Errors
    /// A database error.
    pub async fn introspect_for_caller(
        &self,
        access_token: &str,
        origin: &Origin,
    ) -> Result<Option<(AccessClaims, ActingUser)>, AccountError> {
        let found = self.introspect(access_token).await?;
        if found.is_none() {
            let event = self.deps.audit.event(AuditKind::AuthzFail, origin).with_resource("introspection");
            // Only recorded: the caller asked whether the token is valid.
            self.deps.audit.queue_error(event, AccountError::InvalidAccessToken);
        }
        Ok(found)
    }
}
