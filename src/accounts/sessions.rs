//! Sessions: what a login opens, how it is refreshed and how it is revoked.
//!
//! Each use of a refresh token replaces it. If a replaced token is used again, either the caller or a thief
//! has a copy of it. The server cannot distinguish the two, so it revokes the session (RFC 9700, section
//! 4.14.2). There is one exception, for a response that was lost: for a short time the same caller can repeat
//! the request and gets the same new token, as long as that token has not been used.

use std::{fmt, time::Duration};

use uuid::Builder;

use super::{AccountError, Accounts, SessionOptions, password_attempts::PasswordAttempt};
use crate::{
    access_token::{AccessClaims, AccessToken, PublicKey},
    domain::{
        AuditEvent, AuditKind, Origin, PasswordHash, RefreshToken, Session, SessionId, Timestamp, User,
    },
    store::{KnownSession, NewSession, SessionChange},
};

/// Time after its use in which a refresh token may be sent again by the same caller.
const REFRESH_RETRY_WINDOW: Duration = Duration::from_secs(10);

impl SessionOptions {
    /// Returns when the session expires if it is not refreshed. The current settings apply, so a shorter
    /// limit shortens existing sessions too.
    fn expires_at(&self, session: &Session) -> Timestamp {
        session.refreshed_at.plus(self.idle).min(session.created_at.plus(self.lifetime))
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

/// The relation of a refresh token in a request to the session of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenState {
    /// The current token, sent by the caller that owns the session.
    Live,
    /// The token before the current one, sent again by the same caller within [`REFRESH_RETRY_WINDOW`]. The
    /// current token is derived from it and this salt.
    Repeated { salt: [u8; 32] },
    /// Any other token with the family of this session.
    Reused,
    /// A token without effect: the session has expired, the user is not verified or is disabled, or the
    /// current token was sent by another caller.
    Useless,
}

/// A refresh token in a request: its digest, its sender and the time.
#[derive(Debug, Clone)]
struct Presentation {
    digest: [u8; 32],
    caller: std::sync::Arc<str>,
    at: Timestamp,
    options: SessionOptions,
}

impl Presentation {
    fn judge(&self, known: &KnownSession) -> TokenState {
        let is_same_caller = self.caller == known.session.caller;
        let is_soon = self.at.since(known.session.refreshed_at) <= REFRESH_RETRY_WINDOW;
        let may_refresh = known.user.is_verified && !known.is_disabled;
        if self.options.expires_at(&known.session) <= self.at || !may_refresh {
            return TokenState::Useless;
        }
        match known.previous {
            _ if self.digest == known.token => {
                if is_same_caller {
                    TokenState::Live
                } else {
                    TokenState::Useless
                }
            }
            Some((previous, salt)) if previous == self.digest && is_same_caller && is_soon => {
                TokenState::Repeated { salt }
            }
            _ => TokenState::Reused,
        }
    }
}

impl Accounts {
    /// Opens a session for a user whose password was right. Returns `None` when the password was changed, or
    /// the user is no longer verified or was disabled, since the password was checked.
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
        };
        let right = attempt.right_password(user, event);
        let is_open = self.deps.store.open_session(new, right).await?;
        if is_open {
            attempt.mark_settled();
        }
        Ok(is_open.then_some(tokens))
    }

    fn issue(
        &self,
        user: User,
        session: &Session,
        refresh_token: RefreshToken,
        now: Timestamp,
    ) -> Result<IssuedTokens, AccountError> {
        let id = Builder::from_random_bytes(self.deps.env.entropy.bytes()).into_uuid();
        let claims = AccessClaims::new(id, user.auth_token, session.id, session.caller.clone(), now);
        let (access_token, claims) = self.deps.access_tokens.sign(claims)?;
        Ok(IssuedTokens {
            user,
            session: session.id,
            access_token,
            access_expires_at: claims.expires_at,
            refresh_token,
            refresh_expires_at: self.options.sessions.expires_at(session),
        })
    }

    /// Replaces a refresh token, and returns the new refresh token with a new access token.
    ///
    /// A replaced token returns the same new refresh token if the same caller sends it again within 10 s and
    /// the new one has not been used. A replaced token that is sent later, or by another caller, revokes the
    /// session. The current token has no effect if another caller sends it.
    ///
    /// # Errors
    /// [`AccountError::InvalidRefreshToken`] or a database error.
    pub async fn refresh_session(
        &self,
        token: &RefreshToken,
        origin: &Origin,
    ) -> Result<IssuedTokens, AccountError> {
        let (token, origin) = (token.clone(), origin.clone());
        self.run_detached(|accounts, _| async move { accounts.rotate_token(&token, &origin).await }).await
    }

    async fn rotate_token(
        &self,
        token: &RefreshToken,
        origin: &Origin,
    ) -> Result<IssuedTokens, AccountError> {
        let salt = self.deps.env.entropy.bytes();
        let now = self.deps.env.clock.now();
        let presentation = Presentation {
            digest: *token.digest().as_bytes(),
            caller: origin.caller.clone(),
            at: now,
            options: self.options.sessions,
        };
        let renewed = self.deps.audit.event(AuditKind::SessionRenewed, origin);
        let reused = self.deps.audit.event(AuditKind::AuthnTokenReuse, origin);
        let (judge, successor) = (presentation.clone(), token.successor(&salt).digest());
        let decide = move |known: &KnownSession| match judge.judge(known) {
            TokenState::Live => SessionChange::Rotate {
                token: successor,
                salt,
                event: about_session(renewed, &known.session),
            },
            TokenState::Repeated { .. } | TokenState::Useless => SessionChange::Keep,
            TokenState::Reused => SessionChange::End { event: about_session(reused, &known.session) },
        };
        let Some(known) = self.deps.store.change_session(token.family_digest(), decide).await? else {
            return Err(self.refuse_refresh(origin, None));
        };
        let mut session = known.session.clone();
        origin.note.set_user(session.user);
        let salt = match presentation.judge(&known) {
            TokenState::Live => {
                session.refreshed_at = now;
                salt
            }
            TokenState::Repeated { salt } => salt,
            TokenState::Useless => return Err(self.refuse_refresh(origin, Some(&session))),
            TokenState::Reused => return Err(AccountError::InvalidRefreshToken),
        };
        self.issue(known.user, &session, token.successor(&salt), now)
    }

    fn refuse_refresh(&self, origin: &Origin, session: Option<&Session>) -> AccountError {
        let event = self.deps.audit.event(AuditKind::SessionRenewFail, origin);
        let event = event.with_user(session.map(|session| session.user));
        self.deps.audit.refused(event, None, AccountError::InvalidRefreshToken)
    }

    /// Revokes the session of a refresh token, also if the token has been replaced. Succeeds if there is no
    /// such session, which is recorded.
    ///
    /// # Errors
    /// A database error.
    pub async fn log_out(&self, token: &RefreshToken, origin: &Origin) -> Result<(), AccountError> {
        let (family, origin) = (token.family_digest(), origin.clone());
        self.run_detached(|accounts, _| async move {
            let audit = &accounts.deps.audit;
            let revoked = audit.event(AuditKind::SessionExpired, &origin);
            let decide =
                |known: &KnownSession| SessionChange::End { event: about_session(revoked, &known.session) };
            if accounts.deps.store.change_session(family, decide).await?.is_none() {
                let failed = audit.event(AuditKind::SessionExpireFail, &origin);
                // Only recorded: the session may have ended before, which the user wanted.
                let _unsent = audit.refused(failed, None, AccountError::InvalidRefreshToken);
            }
            Ok(())
        })
        .await
    }

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
            return Err(self.deps.audit.refused(event, None, AccountError::InvalidAccessToken));
        };
        origin.note.set_user(acting.user.auth_token);
        Ok(acting)
    }

    /// Returns the public keys that verify access tokens, latest first. Keys that will sign only later are
    /// included.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.deps.access_tokens.public_keys(self.deps.env.clock.now())
    }

    /// Returns the claims and the user of an access token; `None` if the token is invalid or its session has
    /// ended.
    ///
    /// # Errors
    /// A database error.
    pub async fn introspect(
        &self,
        access_token: &str,
    ) -> Result<Option<(AccessClaims, ActingUser)>, AccountError> {
        let now = self.deps.env.clock.now();
        let Ok(claims) = self.deps.access_tokens.verify(access_token, now) else { return Ok(None) };
        let known = self.deps.store.find_session(claims.session, claims.user).await?;
        let is_live = |known: &KnownSession| {
            known.user.is_verified && now < self.options.sessions.expires_at(&known.session)
        };
        Ok(known.filter(is_live).map(|known| {
            let acting = ActingUser { user: known.user, session: known.session.id };
            (claims, acting)
        }))
    }

    /// Like [`Accounts::introspect`], for a caller that asks about the token: records a token that is not
    /// valid.
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
            let _unsent = self.deps.audit.refused(event, None, AccountError::InvalidAccessToken);
        }
        Ok(found)
    }

    /// Returns the live sessions of the user, the most recently refreshed first.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_sessions(&self, acting: &ActingUser) -> Result<Vec<Session>, AccountError> {
        let now = self.deps.env.clock.now();
        let mut sessions = self.deps.store.list_sessions(&acting.user).await?;
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

    fn revocation_event(&self, acting: &ActingUser, origin: &Origin) -> AuditEvent {
        self.deps.audit.event(AuditKind::SessionExpired, origin).with_user(Some(acting.user.auth_token))
    }
}

/// Adds the session and its user to an event.
fn about_session(event: AuditEvent, session: &Session) -> AuditEvent {
    event.with_user(Some(session.user)).with_resource(&session.id.to_string())
}
