//! The signals that stop a command.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, reason};
use crate::clock::Clock;

/// Signals within this time are one: a shell and a process manager send the same signal to a whole process
/// group and to the process itself.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Receives SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Makes a write beyond the limit of the size of files (`ulimit -f`) fail as a write to a full disk does. By
/// default the signal SIGXFSZ ends the process, and no line says why.
pub(super) fn handle_file_size_limit() -> Result<(), Failure> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop).map_err(reason)
}

impl Signals {
    /// Starts to receive the signals. From now on they no longer terminate the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(reason)?,
            interrupt: signal(SignalKind::interrupt()).map_err(reason)?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the next signal that does not belong to the one that was received just now, and returns its
    /// name.
    pub(super) async fn next_distinct(&mut self, clock: &Clock) -> &'static str {
        let first = clock.instant();
        loop {
            let signal = self.next().await;
            if clock.instant().duration_since(first) >= ONE_SIGNAL {
                return signal;
            }
            tracing::info!("Received {signal} within a second of the first signal; it counts as the same");
        }
    }
}
