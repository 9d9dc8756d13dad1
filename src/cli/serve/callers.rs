//! The file of callers: read at the start, and again when it changes.

use std::{fs, path::Path, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    callers::{CallerGate, Callers},
    cli::{Failure, reason},
    config::Settings,
    grpc::layer::paths_of_every_service,
};

/// How often the file is looked at. By its content: files that are links, as in containers, change without their times.
const INTERVAL: Duration = Duration::from_secs(2);

/// Who may call, by the settings.
pub(super) fn gate(settings: &Settings) -> Result<CallerGate, Failure> {
    let Some(path) = &settings.callers.file else { return Ok(CallerGate::open()) };
    Ok(CallerGate::kept(parse(path, &read(path)?)?))
}

/// Follows the file until `stop`. SIGHUP looks at once.
pub(super) async fn watch(path: &Path, gate: CallerGate, stop: CancellationToken) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "SIGHUP cannot be heard: callers are not read again"),
    };
    let mut known = read(path);
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let found = read(path);
        if found == known && !is_asked {
            continue;
        }
        match found.clone().and_then(|text| parse(path, &text)) {
            Ok(callers) => {
                tracing::info!("Read the callers again: {}", callers.names().join(", "));
                gate.replace(callers);
            }
            Err(error) => tracing::error!("{error}; the callers known so far stay"),
        }
        known = found;
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("callers.file: {}: {}", path.display(), reason(error)))
}

fn parse(path: &Path, text: &str) -> Result<Callers, Failure> {
    let methods = paths_of_every_service();
    let methods: Vec<_> = methods.iter().map(String::as_str).collect();
    Callers::parse(text, &methods).map_err(|error| format!("callers.file: {}: {error}", path.display()))
}
