//! Writes the log to standard error, as text or as one JSON object per line.
//!
//! No log level shows a password, a token or a hash. The service's own types that hold a secret do not print
//! it. The libraries that transmit secrets (SMTP, PostgreSQL, TLS, HTTP/2) log at `info` and above only,
//! regardless of the setting, because their `trace` events contain the transmitted data. A logged value
//! cannot forge a line, because control characters in it are escaped.

use std::io::{self, BufWriter, Write};

use tracing::{Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The service's own targets. Only the setting limits the level of their events.
const OWN_TARGETS: [&str; 3] = ["kairos_identity", "rpc", "audit"];

/// The most lines that wait to be written; they take a few megabytes.
const QUEUED_LINES_MAX: usize = 16_384;

/// The size of the write buffer.
const WRITE_BYTES_MAX: usize = 64 * 1024;

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

/// Writes the queued lines when it is dropped. Hold it until the process exits.
#[must_use]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Sets up the log of the process; `level` is in the syntax of [`EnvFilter`].
///
/// A separate thread writes the lines. While `QUEUED_LINES_MAX` lines are queued, a caller that logs is
/// blocked, so no line is dropped. A SIGKILL loses the lines of the last milliseconds.
///
/// # Errors
/// [`TelemetryError`] if `level` cannot be parsed, or if the log is already set up.
pub fn init(level: &str, is_json: bool) -> Result<LogGuard, TelemetryError> {
    let writer = NonBlockingBuilder::default().lossy(false).buffered_lines_limit(QUEUED_LINES_MAX);
    // The thread flushes when the queue is empty, so lines that arrive together are written in one system
    // call.
    let (stderr, guard) = writer.finish(BufWriter::with_capacity(WRITE_BYTES_MAX, io::stderr()));
    let stderr = move || stderr.clone();
    let lines = if is_json { json(stderr) } else { text(stderr) };
    let own = filter_fn(may_log);
    tracing_subscriber::registry()
        .with(EnvFilter::try_new(level)?)
        .with(lines.with_filter(own))
        .try_init()?;
    log_panics();
    Ok(LogGuard { _writer: guard })
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

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn json<S, W>(writer: impl Fn() -> W + Send + Sync + 'static) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer)
        .boxed()
}

/// Formats events as text, without colours: then every escape sequence in a line is part of a value and is
/// escaped.
fn text<S, W>(writer: impl Fn() -> W + Send + Sync + 'static) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    fmt::layer().with_ansi(false).with_writer(move || OneLine(writer())).boxed()
}

/// True if the target is the service's own, or the level is `info` or more severe.
fn may_log(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OWN_TARGETS.contains(&target)
}

/// Writes each event as one line. The formatter passes a whole event in one call; the last byte ends the
/// line.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = event.split_at(event.len().saturating_sub(1));
        if line.iter().any(u8::is_ascii_control) {
            let escaped =
                |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            let line: String = String::from_utf8_lossy(line).chars().map(escaped).collect();
            // One call, so that no line of another thread is written in between.
            self.0.write_all(&[line.as_bytes(), end].concat())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(is_json: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let layer = if is_json { json(move || sink.clone()) } else { text(move || sink.clone()) };
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter_fn(may_log)));
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        for is_json in [false, true] {
            let text = logged(
                is_json,
                || tracing::info!(name = %"a\r\n2026 INFO forged\u{1b}[2K", "Logged\nsomething"),
            );
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.contains('\r') && !text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn libraries_do_not_log_transmitted_data() {
        let text = logged(false, || {
            tracing::trace!(target: "lettre::transport", "AUTH PLAIN hunter2");
            tracing::debug!(target: "tokio_postgres", "hunter2");
            tracing::info!(target: "hyper", "kept");
            tracing::trace!(target: "kairos_identity::store", "ours");
        });
        assert!(text.contains("kept") && text.contains("ours") && !text.contains("hunter2"), "{text}");
    }
}
