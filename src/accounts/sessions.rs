//! What lasts after a login, and how it ends.
//!
//! A refresh token is replaced at every use. Whoever uses one that was replaced has a copy of it, or somebody else has: which of the two is
//! not to be told, so the session ends (RFC 9700, section 4.14.2). One answer may be lost on the way, though: for a moment, the caller
//! who got it may ask again and gets the same one, as long as nobody has used it.

use std::{fmt, time::Duration};

use uuid::Builder;

use super::{AccountError, Accounts, audit, throttle::Guess};
use crate::{
    access_token::{AccessClaims, AccessToken, PublicKey},
    domain::{
        AuditEvent, AuditKind, Origin, PasswordHash, RefreshToken, Session, SessionId, Timestamp, User,
    },
    store::{KnownSession, NewSession, SessionChange},
};

/// Within how long after its use a refresh token may be shown again.
const REPEAT_WITHIN: Duration = Duration::from_secs(10);

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Without a refresh.
    pub idle: Duration,
    /// Whatever happens.
    pub lifetime: Duration,
    /// How many one user may have; those refreshed longest ago end for a new one.
    pub per_user_max: u32,
}

impl SessionOptions {
    /// When the session ends by itself, if it is not refreshed. By the settings of now: a shorter life is a shorter life for all.
    fn ends_at(&self, session: &Session) -> Timestamp {
        session.refreshed_at.plus(self.idle).min(session.created_at.plus(self.lifetime))
    }
}

/// What a login or a refresh gives.
#[derive(Debug, Clone)]
pub struct IssuedTokens {
    /// Whose they are.
    pub user: User,
    /// The session that they belong to.
    pub session: SessionId,
    /// For who is asked to believe that it is this user.
    pub access_token: AccessToken,
    /// When it is no longer good.
    pub access_expires_at: Timestamp,
    /// For the next refresh.
    pub refresh_token: RefreshToken,
    /// When it is no longer good, if it is not used.
    pub refresh_expires_at: Timestamp,
}

/// A user who acts, proven by an access token whose session goes on.
#[derive(Clone)]
pub struct ActingUser {
    /// As they are now.
    pub user: User,
    /// The session of the token.
    pub session: SessionId,
}

impl fmt::Debug for ActingUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingUser").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a shown refresh token is to the session of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The live one, of the caller that may use it.
    Live,
    /// The one before it, soon enough by the same caller: with this salt the live one follows from it.
    Repeated { salt: [u8; 32] },
    /// Any other that the session once had.
    Reused,
    /// One that is of no use, whatever it once was: the session has lasted too long, or is another caller's.
    Useless,
}

/// Who shows which token, and when.
#[derive(Debug, Clone)]
struct Showing {
    digest: [u8; 32],
    caller: std::sync::Arc<str>,
    at: Timestamp,
    options: SessionOptions,
}

impl Showing {
    fn judge(&self, known: &KnownSession) -> Shown {
        let is_same_caller = self.caller == known.session.caller;
        let is_soon = self.at.since(known.session.refreshed_at) <= REPEAT_WITHIN;
        let may_go_on = known.user.is_verified && !known.is_disabled;
        if self.options.ends_at(&known.session) <= self.at || !may_go_on {
            return Shown::Useless;
        }
        match known.previous {
            _ if self.digest == known.token => {
                if is_same_caller {
                    Shown::Live
                } else {
                    Shown::Useless
                }
            }
            Some((previous, salt)) if previous == self.digest && is_same_caller && is_soon => {
                Shown::Repeated { salt }
            }
            _ => Shown::Reused,
        }
    }
}

impl Accounts {
    /// Begins a session of a user whose password was right; nothing when the password was changed meanwhile.
    pub(super) async fn open_session(
        &self,
        user: &User,
        password: &PasswordHash,
        guess: &Guess,
        origin: &Origin,
    ) -> Result<Option<IssuedTokens>, AccountError> {
        let (entropy, now) = (&self.with.entropy, self.with.clock.now());
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
        let event = self.with.audit.event(AuditKind::AuthnLoginSuccess, origin).about(Some(user.auth_token));
        let event = event.of(&session.id.to_string());
        let new = NewSession {
            user: user.id,
            password: password.clone(),
            session,
            family: tokens.refresh_token.family_digest(),
            token: tokens.refresh_token.digest(),
            sessions_max: self.options.sessions.per_user_max,
        };
        let right = self.right_password(guess, Some(event.clone()));
        let is_open = self.with.store.open_session(new, right).await?;
        if is_open {
            audit::log(&event);
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
        let id = Builder::from_random_bytes(self.with.entropy.bytes()).into_uuid();
        let claims = AccessClaims::new(id, user.auth_token, session.id, session.caller.clone(), now);
        let (access_token, claims) = self.with.access_tokens.sign(claims)?;
        Ok(IssuedTokens {
            user,
            session: session.id,
            access_token,
            access_expires_at: claims.expires_at,
            refresh_token,
            refresh_expires_at: self.options.sessions.ends_at(session),
        })
    }

    /// Replaces a refresh token, and gives a new access token with the new one.
    ///
    /// A token that was replaced, shown again by the same caller within 10 s and before its successor is used, gives the same successor. Shown
    /// later, or by another caller, it ends the session. The live one does nothing in the hands of another caller.
    ///
    /// # Errors
    /// [`AccountError::InvalidRefreshToken`], or that the database is not available.
    pub async fn refresh_session(
        &self,
        token: &RefreshToken,
        origin: &Origin,
    ) -> Result<IssuedTokens, AccountError> {
        let salt = self.with.entropy.bytes();
        let now = self.with.clock.now();
        let showing = Showing {
            digest: *token.digest().as_bytes(),
            caller: origin.caller.clone(),
            at: now,
            options: self.options.sessions,
        };
        let renewed = self.with.audit.event(AuditKind::SessionRenewed, origin);
        let reused = self.with.audit.event(AuditKind::AuthnTokenReuse, origin);
        let (judge, successor) = (showing.clone(), token.successor(&salt).digest());
        let decide = move |known: &KnownSession| match judge.judge(known) {
            Shown::Live => {
                SessionChange::Rotate { token: successor, salt, event: about(renewed, &known.session) }
            }
            Shown::Repeated { .. } | Shown::Useless => SessionChange::Keep,
            Shown::Reused => SessionChange::End { event: about(reused, &known.session) },
        };
        let Some((known, change)) = self.with.store.change_session(token.family_digest(), decide).await?
        else {
            return Err(self.refuse_refresh(origin, None));
        };
        if let SessionChange::Rotate { event, .. } | SessionChange::End { event } = &change {
            audit::log(event);
        }
        let mut session = known.session.clone();
        let salt = match showing.judge(&known) {
            Shown::Live => {
                session.refreshed_at = now;
                salt
            }
            Shown::Repeated { salt } => salt,
            Shown::Useless => return Err(self.refuse_refresh(origin, Some(&session))),
            Shown::Reused => return Err(AccountError::InvalidRefreshToken),
        };
        self.issue(known.user, &session, token.successor(&salt), now)
    }

    fn refuse_refresh(&self, origin: &Origin, session: Option<&Session>) -> AccountError {
        let event = self.with.audit.event(AuditKind::SessionRenewFail, origin);
        let event = event.about(session.map(|session| session.user));
        self.with.audit.refused(event, None, AccountError::InvalidRefreshToken)
    }

    /// Ends the session of a refresh token, whichever of its tokens it is. That there is none, or no longer, is as good.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn log_out(&self, token: &RefreshToken, origin: &Origin) -> Result<(), AccountError> {
        let ended = self.with.audit.event(AuditKind::SessionExpired, origin);
        let decide = |known: &KnownSession| SessionChange::End { event: about(ended, &known.session) };
        let changed = self.with.store.change_session(token.family_digest(), decide).await?;
        if let Some((_, SessionChange::End { event })) = changed {
            audit::log(&event);
        }
        Ok(())
    }

    /// Who shows this access token, if its session goes on.
    ///
    /// # Errors
    /// [`AccountError::InvalidAccessToken`], or that the database is not available.
    pub async fn authenticate(
        &self,
        access_token: &str,
        origin: &Origin,
    ) -> Result<ActingUser, AccountError> {
        let Some((_, acting)) = self.introspect(access_token).await? else {
            let event = self.with.audit.event(AuditKind::AuthzFail, origin);
            return Err(self.with.audit.refused(event, None, AccountError::InvalidAccessToken));
        };
        Ok(acting)
    }

    /// The keys that access tokens are verified with, the latest first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.with.access_tokens.public_keys(self.with.clock.now())
    }

    /// What an access token says and who shows it; nothing when it is none, or its session has ended.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn introspect(
        &self,
        access_token: &str,
    ) -> Result<Option<(AccessClaims, ActingUser)>, AccountError> {
        let now = self.with.clock.now();
        let Ok(claims) = self.with.access_tokens.verify(access_token, now) else { return Ok(None) };
        let known = self.with.store.find_session(claims.session, claims.user).await?;
        let goes_on = |known: &KnownSession| {
            known.user.is_verified && now < self.options.sessions.ends_at(&known.session)
        };
        Ok(known.filter(goes_on).map(|known| {
            let acting = ActingUser { user: known.user, session: known.session.id };
            (claims, acting)
        }))
    }

    /// The sessions of the user that go on, those refreshed last first.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn list_sessions(&self, acting: &ActingUser) -> Result<Vec<Session>, AccountError> {
        let now = self.with.clock.now();
        let mut sessions = self.with.store.list_sessions(&acting.user).await?;
        sessions.retain(|session| now < self.options.sessions.ends_at(session));
        Ok(sessions)
    }

    /// Ends one of the user's sessions.
    ///
    /// # Errors
    /// [`AccountError::SessionNotFound`], or that the database is not available.
    pub async fn revoke_session(
        &self,
        acting: &ActingUser,
        session: SessionId,
        origin: &Origin,
    ) -> Result<(), AccountError> {
        let event = self.ended(acting, origin).of(&session.to_string());
        if !self.with.store.end_session(session, acting.user.id, event.clone()).await? {
            return Err(AccountError::SessionNotFound);
        }
        audit::log(&event);
        Ok(())
    }

    /// Ends all of the user's sessions, or all but the one that they act in; gives how many.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn revoke_all_sessions(
        &self,
        acting: &ActingUser,
        keeps_current: bool,
        origin: &Origin,
    ) -> Result<usize, AccountError> {
        let event = self.ended(acting, origin);
        let keep = keeps_current.then_some(acting.session);
        let ended = self.with.store.end_sessions(acting.user.id, keep, event.clone()).await?;
        if ended > 0 {
            audit::log(&event);
        }
        Ok(ended)
    }

    fn ended(&self, acting: &ActingUser, origin: &Origin) -> AuditEvent {
        self.with.audit.event(AuditKind::SessionExpired, origin).about(Some(acting.user.auth_token))
    }
}

/// The event, about the session and its user.
fn about(event: AuditEvent, session: &Session) -> AuditEvent {
    event.about(Some(session.user)).of(&session.id.to_string())
}
