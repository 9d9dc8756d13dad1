//! Logs, to standard error: text for people, or one JSON object a line.
//!
//! No level shows a password, a token or a hash: our own types that hold one cannot print, and the libraries that handle
//! them on our behalf (SMTP, PostgreSQL, TLS, HTTP/2) are held at `info` whatever the setting says, since their `trace`
//! shows what travels. No value can forge a line: control characters in it are escaped.

use std::io::{self, BufWriter, Write};

use tracing::{Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Targets of our own, which may be as talkative as the setting says.
const OWN_TARGETS: [&str; 3] = ["kairos_identity", "rpc", "audit"];

/// How many lines may wait to be written: some megabytes.
const LINES_WAITING_MAX: usize = 16_384;

/// How much is written at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("the log level is not valid: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("the log was set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes what is still on its way when it is dropped: keep it until the process ends.
#[must_use]
pub struct Log {
    _writer: WorkerGuard,
}

/// Sets up the log of the process; `level` is in the language of [`EnvFilter`].
///
/// A thread of its own writes the lines. When `LINES_WAITING_MAX` of them wait, callers wait for it: no line is lost, but
/// those of the last milliseconds before a SIGKILL.
///
/// # Errors
/// [`TelemetryError`] for a level that is none, or when called twice.
pub fn init(level: &str, is_json: bool) -> Result<Log, TelemetryError> {
    let writer = NonBlockingBuilder::default().lossy(false).buffered_lines_limit(LINES_WAITING_MAX);
    // The thread flushes when no line waits: those that came together leave in one system call.
    let (stderr, guard) = writer.finish(BufWriter::with_capacity(WRITE_BYTES_MAX, io::stderr()));
    let stderr = move || stderr.clone();
    let lines = if is_json { json(stderr) } else { text(stderr) };
    let own = filter_fn(may_log);
    tracing_subscriber::registry()
        .with(EnvFilter::try_new(level)?)
        .with(lines.with_filter(own))
        .try_init()?;
    log_panics();
    Ok(Log { _writer: guard })
}

/// A panic is a line like any other. What it says is cut short, since it may say what a value was.
fn log_panics() {
    const WORDS_MAX: usize = 200;
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.payload_as_str().unwrap_or_default();
        let words: String = words.chars().take(WORDS_MAX).collect();
        let location = panic.location().map(tracing::field::display);
        tracing::error!(location, "Panicked: {words}");
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

/// Without colours: a line's escapes then are nobody's but a value's, and are shown as such.
fn text<S, W>(writer: impl Fn() -> W + Send + Sync + 'static) -> Lines<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    fmt::layer().with_ansi(false).with_writer(move || OneLine(writer())).boxed()
}

fn may_log(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OWN_TARGETS.contains(&target)
}

/// Keeps each event on one line: the formatter writes an event at once, with its one true line end last.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = event.split_at(event.len().saturating_sub(1));
        if line.iter().any(u8::is_ascii_control) {
            let escaped =
                |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            let line: String = String::from_utf8_lossy(line).chars().map(escaped).collect();
            // In one piece: another thread's line must not come between.
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
                || tracing::info!(name = %"a\r\n2026 INFO forged\u{1b}[2K", "Told\nsomething"),
            );
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.contains('\r') && !text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn libraries_do_not_say_what_travels() {
        let text = logged(false, || {
            tracing::trace!(target: "lettre::transport", "AUTH PLAIN hunter2");
            tracing::debug!(target: "tokio_postgres", "hunter2");
            tracing::info!(target: "hyper", "kept");
            tracing::trace!(target: "kairos_identity::store", "ours");
        });
        assert!(text.contains("kept") && text.contains("ours") && !text.contains("hunter2"), "{text}");
    }
}
