//! Sessions: what a login opens, how it is refreshed and how it is revoked.

mod acting_user;
mod refresh;

use uuid::Builder;

pub use self::acting_user::ActingUser;
use super::{AccountError, Accounts, SessionOptions, password_attempts::PasswordAttempt};
use crate::{
    access_token::{AccessClaims, AccessToken, PublicKey},
    domain::{
        AuditEvent, AuditKind, Origin, PasswordHash, RefreshToken, Session, SessionId, Timestamp, User,
    },
    store::{KnownSession, NewSession},
};

impl SessionOptions {
    /// Returns when the session expires if it is not refreshed. The current settings apply, so a shorter
    /// limit shortens existing sessions too.
    fn expires_at(&self, session: &Session) -> Timestamp {
        session.refreshed_at.plus(self.idle).min(session.created_at.plus(self.lifetime))
    }

    /// Returns the latest time at which a session can have been opened or refreshed. If a session has a later
    /// time, a clock was ahead when that time was stored. The lifetime is added because the clock may be
    /// behind now.
    fn latest_possible_refresh(&self, now: Timestamp) -> Timestamp {
        now.plus(self.lifetime)
    }

    /// True if the user may act in this session: it has not expired, and its user is verified and not
    /// disabled. A session whose times were stored while a clock was ahead is not live: it would last longer
    /// than the settings allow.
    fn is_live(&self, known: &KnownSession, now: Timestamp) -> bool {
        let session = &known.session;
        let is_ahead = session.created_at.max(session.refreshed_at) > self.latest_possible_refresh(now);
        known.user.is_verified && !known.is_disabled && !is_ahead && now < self.expires_at(session)
    }
}

/// The tokens that a login or a refresh returns.
#[derive(Debug, Clone)]
pub struct IssuedTokens {
    /// The owner of the tokens.
    pub user: User,
    /// The session of the tokens.
    pub session: SessionId,
    /// The access token, with which other services verify the user's identity.
    pub access_token: AccessToken,
    /// Expiry of the access token.
    pub access_expires_at: Timestamp,
    /// The refresh token for the next refresh.
    pub refresh_token: RefreshToken,
    /// Expiry of the refresh token, if it is not used before.
    pub refresh_expires_at: Timestamp,
}

impl Accounts {
    /// Opens a session for a user whose password was correct. Returns `None` if, after the password was
    /// checked, the password changed, or the user was disabled, deleted or marked as not verified.
    pub(super) async fn open_session(
        &self,
        user: &User,
        password: &PasswordHash,
        attempt: &mut PasswordAttempt,
        origin: &Origin,
    ) -> Result<Option<IssuedTokens>, AccountError> {
        let (entropy, now) = (&self.deps.env.entropy, self.deps.env.clock.now());
        let refresh_token = RefreshToken::from_random(entropy.bytes(), entropy.bytes());
        let session = Session {
            id: SessionId::from_random(entropy.bytes()),
            user: user.auth_token,
            caller: origin.caller.clone(),
            client: origin.client,
            agent: origin.agent.clone(),
            created_at: now,
            refreshed_at: now,
        };
        let tokens = self.issue(user.clone(), &session, refresh_token, now)?;
        let event =
            self.deps.audit.event(AuditKind::AuthnLoginSuccess, origin).with_user(Some(user.auth_token));
        let event = event.with_resource(&session.id.to_string());
        let new = NewSession {
            user: user.id,
            password: password.clone(),
            session,
            family: tokens.refresh_token.family_digest(),
            token: tokens.refresh_token.digest(),
            sessions_max: self.options.sessions.per_user_max,
            latest_possible_refresh: self.options.sessions.latest_possible_refresh(now),
        };
        let correct = attempt.correct_password(user, event);
        let is_open = self.deps.store.open_session(new, correct).await?;
        if is_open {
            attempt.mark_settled();
        }
        Ok(is_open.then_some(tokens))
    }

    /// Signs an access token for the session, and returns it with the refresh token.
    fn issue(
        &self,
        user: User,
        session: &Session,
        refresh_token: RefreshToken,
        now: Timestamp,
    ) -> Result<IssuedTokens, AccountError> {
        let id = Builder::from_random_bytes(self.deps.env.entropy.bytes()).into_uuid();
        let claims = AccessClaims::new(id, user.auth_token, session.id, session.caller.clone(), now);
        let (access_token, claims) = self.deps.signing_keys.access_tokens().sign(claims)?;
        Ok(IssuedTokens {
            user,
            session: session.id,
            access_token,
            access_expires_at: claims.expires_at,
            refresh_token,
            refresh_expires_at: self.options.sessions.expires_at(session),
        })
    }

    /// Returns the public keys that verify access tokens, latest first. Keys that will sign only later are
    /// included.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.deps.signing_keys.access_tokens().public_keys(self.deps.env.clock.now())
    }

    /// Returns the sessions of the user that have not expired, the most recently refreshed first.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_sessions(&self, acting: &ActingUser) -> Result<Vec<Session>, AccountError> {
        let now = self.deps.env.clock.now();
        let mut sessions = self.deps.store.list_sessions(&acting.user).await?;
        // The acting user is verified and not disabled, so only the expiry is checked. A session whose times
        // were stored while a clock was ahead is in the list, although it is not live.
        sessions.retain(|session| now < self.options.sessions.expires_at(session));
        Ok(sessions)
    }

    /// Revokes one of the user's sessions.
    ///
    /// # Errors
    /// [`AccountError::SessionNotFound`] or a database error.
    pub async fn revoke_session(
        &self,
        acting: &ActingUser,
        session: SessionId,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let event = self.revocation_event(acting, origin).with_resource(&session.to_string());
        let user = acting.user.id;
        self.run_detached(|accounts, _| async move {
            if !accounts.deps.store.revoke_session(session, user, event).await? {
                return Err(AccountError::SessionNotFound);
            }
            Ok(())
        })
        .await
    }

    /// Revokes all sessions of the user, or all but the session of the access token, and returns their
    /// number.
    ///
    /// # Errors
    /// A database error.
    pub async fn revoke_all_sessions(
        &self,
        acting: &ActingUser,
        keeps_current: bool,
        origin: &Origin,
    ) -> Result<usize, AccountError> {
        let event = self.revocation_event(acting, origin);
        let (user, keep) = (acting.user.id, keeps_current.then_some(acting.session));
        self.run_detached(|accounts, _| async move {
            Ok(accounts.deps.store.revoke_sessions(user, keep, event).await?)
        })
        .await
    }

    /// Creates the event of a revocation that the user requested.
    fn revocation_event(&self, acting: &ActingUser, origin: &Origin) -> AuditEvent {
        self.deps.audit.event(AuditKind::SessionExpired, origin).with_user(Some(acting.user.auth_token))
    }
}
