//! Refreshing and revoking a session with its refresh token.
//!
//! Each use of a refresh token replaces it. If a replaced token is used again, either the caller or a thief
//! has a copy of it. The server cannot distinguish the two, so it revokes the session (RFC 9700, section
//! 4.14.2). There is one exception, for a response that was lost: for a short time the same caller can repeat
//! the request and gets the same new token, as long as that token has not been used.

use std::{sync::Arc, time::Duration};

use super::IssuedTokens;
use crate::{
    accounts::{AccountError, Accounts, SessionOptions},
    domain::{AuditEvent, AuditKind, Origin, RefreshToken, Session, Timestamp},
    store::{KnownSession, SessionChange},
};

/// Time after its use in which a refresh token may be sent again by the same caller.
const REFRESH_RETRY_WINDOW: Duration = Duration::from_secs(10);

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

/// A refresh token in a request: its digest, its sender and the time, with the options that it is judged by.
#[derive(Debug, Clone)]
struct Presentation {
    digest: [u8; 32],
    caller: Arc<str>,
    at: Timestamp,
    options: SessionOptions,
}

impl Presentation {
    /// Compares the token with those of the session.
    fn classify(&self, known: &KnownSession) -> TokenState {
        if !self.options.is_live(known, self.at) {
            return TokenState::Useless;
        }
        let is_same_caller = self.caller == known.session.caller;
        if self.digest == known.token {
            return if is_same_caller { TokenState::Live } else { TokenState::Useless };
        }
        let is_in_retry_window = self.at.since(known.session.refreshed_at) <= REFRESH_RETRY_WINDOW;
        match known.previous {
            Some((previous, salt)) if previous == self.digest && is_same_caller && is_in_retry_window => {
                TokenState::Repeated { salt }
            }
            _ => TokenState::Reused,
        }
    }
}

impl Accounts {
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

    /// Runs in the detached task of [`Accounts::refresh_session`].
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
        let (presented, successor) = (presentation.clone(), token.successor(&salt).digest());
        let decide = move |known: &KnownSession| match presented.classify(known) {
            TokenState::Live => SessionChange::Rotate {
                token: successor,
                salt,
                event: about_session(renewed, &known.session),
            },
            TokenState::Repeated { .. } | TokenState::Useless => SessionChange::Keep,
            TokenState::Reused => SessionChange::Revoke { event: about_session(reused, &known.session) },
        };
        let Some(known) = self.deps.store.change_session(token.family_digest(), decide).await? else {
            return Err(self.refuse_refresh(origin, None));
        };
        // `known` is the session before the change, so this repeats the decision of the transaction.
        let mut session = known.session.clone();
        origin.note.set_user(session.user);
        let salt = match presentation.classify(&known) {
            TokenState::Live => {
                session.refreshed_at = now;
                salt
            }
            TokenState::Repeated { salt } => salt,
            TokenState::Useless => return Err(self.refuse_refresh(origin, Some(&session))),
            // The transaction has recorded the reuse.
            TokenState::Reused => return Err(AccountError::InvalidRefreshToken),
        };
        self.issue(known.user, &session, token.successor(&salt), now)
    }

    /// Records a refused refresh, and returns the error.
    fn refuse_refresh(&self, origin: &Origin, session: Option<&Session>) -> AccountError {
        let event = self.deps.audit.event(AuditKind::SessionRenewFail, origin);
        let event = event.with_user(session.map(|session| session.user));
        self.deps.audit.queue_error(event, AccountError::InvalidRefreshToken)
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
            let decide = |known: &KnownSession| SessionChange::Revoke {
                event: about_session(revoked, &known.session),
            };
            if accounts.deps.store.change_session(family, decide).await?.is_none() {
                let failure_event = audit.event(AuditKind::SessionExpireFail, &origin);
                // Only recorded: there is no session any more, which the user wanted.
                audit.queue_error(failure_event, AccountError::InvalidRefreshToken);
            }
            Ok(())
        })
        .await
    }
}

/// Adds the session and its user to an event.
fn about_session(event: AuditEvent, session: &Session) -> AuditEvent {
    event.with_user(Some(session.user)).with_resource(&session.id.to_string())
}
