//! Compares the clock of this machine with that of PostgreSQL. Stored times come from the clocks of the
//! instances; the clock of the server that they share shows whether they agree.

use std::time::Duration;

use crate::{clock::Clock, database::DatabaseError, store::Store};

/// Returns the difference between the two clocks; `None` on SQLite.
///
/// # Errors
/// [`DatabaseError`] if the server does not answer.
pub(super) async fn difference_from_server(
    store: &Store,
    clock: &Clock,
) -> Result<Option<Duration>, DatabaseError> {
    let began = clock.now();
    let Some(server) = store.server_time().await? else { return Ok(None) };
    // The server read its clock somewhere within the call.
    let middle = began.plus(clock.now().since(began) / 2);
    Ok(Some(server.since(middle).max(middle.since(server))))
}

/// Says how far the two clocks differ.
pub(super) fn said(difference: Duration) -> String {
    format!("the clock of this machine and that of PostgreSQL differ by {:.3} s", difference.as_secs_f64())
}
