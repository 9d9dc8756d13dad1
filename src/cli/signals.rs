//! The signals that end the service.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, reason};

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(reason)?,
            interrupt: signal(SignalKind::interrupt()).map_err(reason)?,
        })
    }

    /// The next of them, by name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
