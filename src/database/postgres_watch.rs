//! Watches whether the connections go to the right one of several PostgreSQL servers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{postgres_connect::Connector, postgres_pool::ConnectionPool};
use crate::database::DatabaseError;

/// Interval at which a server that may have to be left is checked.
const SERVER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Checks each second that the server of the connections is still the one to use. If it is not, as after the
/// demotion of a primary, all connections to it are closed; the next ones go to another host. `moves` is
/// notified with the moment before which those were opened.
pub(super) async fn watch_server(
    connector: Arc<Connector>,
    pool: ConnectionPool,
    moves: Arc<watch::Sender<Option<Instant>>>,
) {
    let mut ticks = interval(SERVER_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut connection, mut previous) = (None, connector.current());
    loop {
        let at = ticks.tick().await;
        let checked = match connection.take() {
            Some(mut open) => connector.check(&mut open).await.map(|()| open),
            None => Arc::clone(&connector)
                .connect()
                .await
                .map_err(|error| DatabaseError::unavailable(error).chain()),
        };
        let current = connector.current();
        if let Err(reason) = &checked {
            tracing::debug!(reason, "PostgreSQL server not usable");
        } else if current != previous {
            tracing::warn!("Connections to PostgreSQL now go to {}", connector.current_address());
        }
        if checked.is_err() || current != previous {
            previous = current;
            pool.discard_before(at.into_std());
            moves.send_replace(Some(at.into_std()));
        }
        connection = checked.ok();
    }
}
