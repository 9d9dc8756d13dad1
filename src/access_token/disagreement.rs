//! Logs that instances of the service disagree: a token that a key of this service signed is refused because
//! of its issuer, its audience or its time. No stranger can cause such a line, because it needs the key.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    claims::Claims,
    options::{AccessTokenOptions, ISSUED_AHEAD_MAX},
};
use crate::domain::Timestamp;

/// The time between two lines of a kind: while two instances disagree, every other call may show it.
const INTERVAL: Duration = Duration::from_mins(1);

/// When the lines were last logged.
#[derive(Debug, Default)]
pub(super) struct Disagreements {
    options_said_at: Mutex<Option<Timestamp>>,
    clock_said_at: Mutex<Option<Timestamp>>,
}

impl Disagreements {
    /// Logs that a token which has not expired has another issuer or audience than this instance.
    pub(super) fn log_options(&self, claims: &Claims, options: &AccessTokenOptions, now: Timestamp) {
        if claims.expires_at() <= now || !claim_line(&self.options_said_at, now) {
            return;
        }
        tracing::warn!(
            issuer = claims.iss,
            audience = claims.aud,
            "An access token that this service signed was refused: it is of issuer {} for {}, and this instance has \
             session.issuer = {} and session.audience = {}. Give all instances the same; after a change of \
             these settings, earlier tokens are refused until they expire",
            claims.iss,
            claims.aud,
            options.issuer,
            options.audience
        );
    }

    /// Logs that a token was issued later than any clock that agrees with this one can show.
    pub(super) fn log_clock(&self, issued_at: Timestamp, now: Timestamp) {
        if !claim_line(&self.clock_said_at, now) {
            return;
        }
        let ahead = issued_at.since(now).as_secs();
        tracing::warn!(
            seconds = ahead,
            "An access token that this service signed was refused: it was issued {ahead} s after the time of this machine's clock, \
             and at most {} s are accepted. The clock of another instance is ahead, or this one is behind: \
             synchronize them (NTP)",
            ISSUED_AHEAD_MAX.as_secs()
        );
    }
}

/// True if the last line was logged at least [`INTERVAL`] before, or after, `now`; sets its time then.
fn claim_line(said_at: &Mutex<Option<Timestamp>>, now: Timestamp) -> bool {
    let mut said_at = said_at.lock().unwrap_or_else(PoisonError::into_inner);
    let may_log = said_at.is_none_or(|at| now.since(at).max(at.since(now)) >= INTERVAL);
    if may_log {
        *said_at = Some(now);
    }
    may_log
}
