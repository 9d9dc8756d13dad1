//! Waits at the start for a PostgreSQL server that does not accept connections yet.

use std::{error::Error, io, pin::pin, time::Duration};

use tokio_postgres::error::SqlState;

use super::postgres_connect::{Connector, PostgresOptions};
use crate::{clock::Clock, database::DatabaseError};

/// The time from the beginning of an attempt to the next one, if the attempt does not take longer, and
/// between two lines in the log.
const INTERVAL: Duration = Duration::from_secs(1);

/// The errors of a server that will accept connections later: it starts, stops or is full.
const NOT_READY: [SqlState; 4] = [
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::TOO_MANY_CONNECTIONS,
];

/// Waits until the server accepts a connection, or until `limit` has passed. Returns at once if the server
/// refuses the connection for a reason that does not pass by itself, such as a wrong password. If the server
/// has accepted no connection, the first query returns the error.
///
/// # Errors
/// [`DatabaseError::Unavailable`] if the TLS root certificates cannot be read.
pub async fn wait_for_postgres(
    options: &PostgresOptions,
    limit: Duration,
    clock: &Clock,
) -> Result<(), DatabaseError> {
    let (connector, began) = (Connector::new(options)?, clock.instant());
    let since = |instant| clock.instant().duration_since(instant);
    let mut said_at = None;
    let mut say = |reason: &str| {
        // The end of an attempt may follow at once on the line of a second in which it hung.
        if said_at.is_none_or(|at| since(at) >= INTERVAL / 2) {
            said_at = Some(clock.instant());
            warn_not_ready(options, reason, limit.saturating_sub(since(began)));
        }
    };
    loop {
        let attempt_began = clock.instant();
        let mut attempt = pin!(connector.try_once());
        let result = loop {
            tokio::select! {
                biased;
                result = &mut attempt => break result,
                () = tokio::time::sleep(INTERVAL) => say("no answer yet"),
            }
        };
        let reason = match result {
            Ok(()) => return Ok(()),
            Err(Some((error, _))) if !is_not_ready(&error) => return Ok(()),
            Err(Some((_, reason))) => reason,
            Err(None) => "no answer within database.connect-timeout".to_owned(),
        };
        let left = limit.saturating_sub(since(began));
        if left.is_zero() {
            return Ok(());
        }
        say(&reason);
        tokio::time::sleep(INTERVAL.saturating_sub(since(attempt_began)).min(left)).await;
    }
}

fn warn_not_ready(options: &PostgresOptions, reason: &str, left: Duration) {
    tracing::warn!(
        error = reason,
        "PostgreSQL at {} is not ready; waiting up to {} s for it",
        options.url.address(),
        left.as_secs().max(1)
    );
}

/// True if the server may accept the same connection later.
fn is_not_ready(error: &tokio_postgres::Error) -> bool {
    use io::ErrorKind as Kind;
    if let Some(code) = error.code() {
        return NOT_READY.contains(code);
    }
    // A wrong certificate is `InvalidData`. A host name that cannot be resolved counts as not ready: in a
    // cluster of containers, the name of a server appears when the server starts.
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_closed()
        || io.is_some_and(|error| {
            !matches!(error.kind(), Kind::InvalidData | Kind::InvalidInput | Kind::PermissionDenied)
        })
}
