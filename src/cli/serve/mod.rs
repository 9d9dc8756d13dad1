//! `kairos-identity serve`: constructs, starts and stops all parts of the service.

mod assembly;
mod metrics;
mod options;
mod ports;
mod preflight;
mod reload;
mod running;
mod service_manager;

use clap::Args;

use self::assembly::Service;
pub(super) use self::{
    options::transport,
    ports::Port,
    preflight::{
        CALLERS, CERTIFICATES, DATABASE, MAIL, PAGES, check_keys, check_mail, check_named_key, check_schema,
        has_database, load_templates,
    },
    reload::{TlsConfigs, gate, unreadable_tls_files},
};
use super::{Failure, signals::Signals};
use crate::{
    clock::Clock,
    config::{ServeFlags, Settings, Sources},
    server::WorkerThreads,
    telemetry::Telemetry,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Print the settings in force, with the origin of each and without passwords, and exit
    #[arg(long)]
    pub(super) print_config: bool,
    #[command(flatten)]
    pub(super) flags: ServeFlags,
}

/// Serves until SIGTERM or SIGINT, and then drains. A further signal aborts the calls in flight; one within a
/// second of the first counts as the same signal.
pub(super) async fn run(settings: Settings, sources: &Sources, telemetry: &Telemetry) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let threads = WorkerThreads::start(settings.server.threads.as_usize())
        .map_err(|error| format!("server.threads: the threads cannot be started: {error}"))?;
    let service = tokio::select! {
        assembled = Service::assemble(settings, sources, telemetry, threads.workers()) => assembled?,
        signal = signals.next() => return Err(format!("received {signal} before the service was ready")),
    };
    let running = service.start(threads.workers().clone());
    service_manager::report_ready();
    // Not stopped with the rest: a service that hangs in its shutdown is not alive.
    tokio::spawn(service_manager::report_alive(threads.workers().clone()));
    let signal = signals.next().await;
    service_manager::report_stopping();
    tracing::info!("Received {signal}; shutting down: calls in flight may finish until the drain deadline");
    let clock = Clock::system();
    tokio::select! {
        () = running.stop() => Ok(()),
        signal = signals.next_distinct(&clock) => {
            Err(format!("received a second signal ({signal}): calls in flight were aborted"))
        }
    }
}
