//! Compares the clock of this machine with that of PostgreSQL. Stored times come from the clocks of the
//! instances; the clock of the server that they share shows whether they agree.

use std::{fmt, time::Duration};

use crate::{clock::Clock, database::DatabaseError, store::Store};

/// How far the clock of this machine is from that of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    pub(super) amount: Duration,
    is_ahead: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_ahead { "ahead of" } else { "behind" };
        let seconds = self.amount.as_secs_f64();
        write!(f, "the clock of this machine is {seconds:.3} s {direction} that of PostgreSQL")
    }
}

/// Compares the two clocks; `None` on SQLite.
///
/// # Errors
/// [`DatabaseError`] if the server does not answer.
pub(super) async fn difference_from_server(
    store: &Store,
    clock: &Clock,
) -> Result<Option<Difference>, DatabaseError> {
    let began = clock.now();
    let Some(server) = store.server_time().await? else { return Ok(None) };
    // The server read its clock somewhere within the call.
    let middle = began.plus(clock.now().since(began) / 2);
    let is_ahead = middle > server;
    let amount = if is_ahead { middle.since(server) } else { server.since(middle) };
    Ok(Some(Difference { amount, is_ahead }))
}
