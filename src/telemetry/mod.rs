//! Writes the log to standard error, as text or as one JSON object per line, and serves the metrics.
//!
//! No log level shows a password, a token or a hash. The service's own types that hold a secret do not print
//! it. The libraries that transmit secrets (SMTP, PostgreSQL, TLS, HTTP/2) log at `info` and above only,
//! regardless of the setting, because their `trace` events contain the transmitted data. A logged value
//! cannot forge a line or control a terminal, because control characters in it are escaped.
//!
//! No thread that logs waits for the reader of standard error. See [`init`].

mod audit_counts;
mod lines;
mod port;
mod process;
mod warnings;
mod writer;

use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt::writer::MakeWriterExt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::{audit_counts::AuditCounts, writer::LogGuard};
pub use self::{port::MetricsPage, warnings::with_warnings, writer::report_failure};
use crate::metrics::{self, PREFIX, Registry};

/// The target of audit events.
const AUDIT_TARGET: &str = "audit";

/// The service's own targets. Only the setting limits the level of their events.
const OWN_TARGETS: [&str; 3] = ["kairos_identity", "rpc", AUDIT_TARGET];

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log level cannot be parsed.
    #[error("the log level is not valid: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("the log is already set up")]
    AlreadySetUp(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the log of the process; `level` is in the syntax of [`EnvFilter`]. `started_at` is the time of its
/// start since 1970, for the metrics.
///
/// Two threads write the lines: one those of audit events, the other the rest. Each has a queue of its own.
/// If standard error is not read, for example because a log collector hangs, the queues fill up. Then new
/// lines are dropped, and a later line says how many. The queue of audit events has room for them alone, so
/// other lines never take their places. A SIGKILL loses the lines of the last milliseconds.
///
/// # Errors
/// [`TelemetryError`] if `level` cannot be parsed, or if the log is already set up.
pub fn init(level: &str, is_json: bool, started_at: Duration) -> Result<Telemetry, TelemetryError> {
    let level = EnvFilter::try_new(level)?;
    let (audit, others, guard) = writer::start(is_json);
    let (dropped_audit_lines, dropped_lines) = (audit.error_counter(), others.error_counter());
    let writers = audit.with_filter(is_audit_event).or_else(others);
    let audit_counts = AuditCounts::new();
    // The hints let disabled events cost nothing: without them, every level would count as enabled.
    let logged = level.and(filter_fn(may_log).with_max_level_hint(LevelFilter::TRACE));
    let counted = filter_fn(is_audit_event).with_max_level_hint(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines::layer(is_json, writers).with_filter(logged))
        .with(audit_counts.clone().with_filter(counted))
        .try_init()?;
    log_panics();
    Ok(Telemetry { audit_counts, dropped_lines, dropped_audit_lines, started_at, _guard: guard })
}

/// The log of the process, and what it counts. Hold it until the process exits: the queued lines are written
/// when it is dropped, within a few seconds.
#[must_use]
pub struct Telemetry {
    audit_counts: AuditCounts,
    dropped_lines: ErrorCounter,
    dropped_audit_lines: ErrorCounter,
    started_at: Duration,
    _guard: LogGuard,
}

impl Telemetry {
    /// Adds the metrics of the log and of the process to a registry without a prefix.
    pub fn register_metrics(&self, registry: &mut Registry) {
        process::register(registry, self.started_at);
        let own = registry.sub_registry_with_prefix(PREFIX);
        self.audit_counts.register(own);
        for (name, help, counter) in [
            (
                "log_lines_dropped",
                "Number of lines of the log that were dropped, because it was not read",
                &self.dropped_lines,
            ),
            (
                "audit_lines_dropped",
                "Number of lines of audit events that were dropped from the log, because it was not read; the audit trail has them",
                &self.dropped_audit_lines,
            ),
        ] {
            let counter = counter.clone();
            metrics::register_total(own, name, help, move || counter.dropped_lines() as u64);
        }
    }
}

/// True for audit events.
fn is_audit_event(metadata: &Metadata<'_>) -> bool {
    metadata.target() == AUDIT_TARGET
}

/// Logs each panic as an event. The panic message is truncated, because it may contain a value.
fn log_panics() {
    const MESSAGE_CHARACTERS_MAX: usize = 200;
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        let message: String = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
        let location = panic.location().map(tracing::field::display);
        tracing::error!(location, "Panicked: {message}");
    }));
}

/// True if the target is the service's own, or the line is an error. Libraries warn of what a peer sends (h2
/// of each PING that acknowledges none), without a limit, and their `debug` lines may contain secrets.
fn may_log(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::ERROR || OWN_TARGETS.contains(&target)
}

#[cfg(test)]
mod tests {
    use super::{lines::Lines, *};

    fn logged(is_json: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = lines::layer(is_json, move || written.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter_fn(may_log)));
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.take()).unwrap()
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        for is_json in [false, true] {
            let text = logged(
                is_json,
                || tracing::info!(name = %"a\r\n2026 INFO forged\u{1b}[2K\u{7f}\u{9b}2K é", "Logged\nsomething"),
            );
            assert_eq!(text.matches(char::is_control).count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && text.contains('é'), "{text:?}");
            if is_json {
                let event: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(event["name"], "a\r\n2026 INFO forged\u{1b}[2K\u{7f}\u{9b}2K é");
            }
        }
    }

    #[test]
    fn libraries_log_errors_only() {
        let text = logged(false, || {
            tracing::trace!(target: "lettre::transport", "AUTH PLAIN hunter2");
            tracing::debug!(target: "tokio_postgres", "hunter2");
            tracing::warn!(target: "h2::proto::ping_pong", "hunter2");
            tracing::error!(target: "hyper", "kept");
            tracing::trace!(target: "kairos_identity::store", "ours");
        });
        assert!(text.contains("kept") && text.contains("ours") && !text.contains("hunter2"), "{text}");
    }
}
