//! Formats events as lines.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
};

/// Returns the layer that formats events and passes each as one line to `writers`.
pub(super) fn layer<S, M>(is_json: bool, writers: M) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    if is_json {
        let json = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        // The formatter has escaped U+0000 to U+001F already (RFC 8259, section 7). The other control
        // characters, U+007F to U+009F, occur only within strings, where the escape is valid JSON.
        json.with_writer(OneLines(writers, |c| format!("\\u{:04x}", u32::from(c)))).boxed()
    } else {
        // Without colours, every escape sequence in a line is part of a value and is escaped.
        fmt::layer()
            .with_ansi(false)
            .with_writer(OneLines(writers, |c| c.escape_default().to_string()))
            .boxed()
    }
}

/// Returns the lines of the events that `log` emits, instead of writing them to the log.
pub(super) fn format(is_json: bool, log: impl FnOnce()) -> Vec<u8> {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::registry().with(layer(is_json, move || written.clone()));
    tracing::subscriber::with_default(subscriber, log);
    lines.take()
}

/// Lines in memory.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Removes the lines and returns them.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the escape sequence of a control character.
type Escape = fn(char) -> String;

/// Wraps each writer of `M` in [`OneLine`].
struct OneLines<M>(M, Escape);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLines<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer(), self.1)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        OneLine(self.0.make_writer_for(metadata), self.1)
    }
}

/// Writes each event as one line. The formatter passes a whole event in one call; the last byte ends the
/// line.
struct OneLine<W>(W, Escape);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = event.split_at(event.len().saturating_sub(1));
        // 0xC2 begins the control characters of Latin-1 in UTF-8, some of which control a terminal.
        if line.iter().any(|byte| byte.is_ascii_control() || *byte == 0xC2) {
            let escaped = |c: char| if c.is_control() { (self.1)(c) } else { c.to_string() };
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
