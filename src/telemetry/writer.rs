//! The threads that write the lines, and what happens when standard error is not read.

use std::{
    io::{self, BufWriter, Write},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::lines;

/// The most lines that wait in each queue; they take a few megabytes.
const QUEUED_LINES_MAX: usize = 16_384;

/// The size of the buffer that collects lines for one system call.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// How many lines are written between two reports of dropped lines, if the queue does not become empty.
const REPORT_INTERVAL_LINES: usize = 1_024;

/// How long the end of the process waits until the queued lines are written.
const FINISH_LIMIT: Duration = Duration::from_secs(3);

/// Writes the queued lines when it is dropped, for at most `FINISH_LIMIT`. Hold it until the process exits.
#[must_use]
pub struct LogGuard {
    workers: Option<[WorkerGuard; 2]>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let workers = self.workers.take();
        within_limit(move || drop(workers));
    }
}

/// Starts the threads. Returns the queue of the lines of audit events, and that of all other lines.
pub(super) fn start(is_json: bool) -> (NonBlocking, NonBlocking, LogGuard) {
    let (audit, audit_worker) = queue(io::stderr(), is_json, "audit");
    let (others, others_worker) = queue(io::stderr(), is_json, "log");
    (audit, others, LogGuard { workers: Some([audit_worker, others_worker]) })
}

/// Writes the reason why a command failed to standard error. Returns after `FINISH_LIMIT` if standard error
/// is not read, so that the process ends.
pub fn report_failure(reason: &str) {
    let line = format!("error: {reason}\n");
    within_limit(move || {
        // There is no other place to report to.
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Runs `write`, which may wait for the reader of standard error. Returns after [`FINISH_LIMIT`] even if
/// `write` has not ended.
fn within_limit(write: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let writer = thread::Builder::new().spawn(move || {
        write();
        // The receiver is gone after the limit.
        let _ = ended.send(());
    });
    if writer.is_ok() {
        // Both the end and the limit end the wait.
        let _ = end.recv_timeout(FINISH_LIMIT);
    }
}

/// Starts a thread that writes the lines of a new queue to `output`. `name` names the thread, and the queue
/// in reports of dropped lines.
fn queue(
    output: impl Write + Send + 'static,
    is_json: bool,
    name: &'static str,
) -> (NonBlocking, WorkerGuard) {
    let counter = Arc::new(OnceLock::new());
    let output = BufWriter::with_capacity(WRITE_BYTES_MAX, output);
    let writer = CountingWriter {
        output,
        is_json,
        name,
        counter: Arc::clone(&counter),
        reported: 0,
        lines_since_report: 0,
    };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES_MAX);
    let (queue, worker) = builder.thread_name(name).finish(writer);
    // The counter exists only once the queue does. Until then no line is dropped.
    let _ = counter.set(queue.error_counter());
    (queue, worker)
}

/// Writes lines, and between them reports of dropped lines.
struct CountingWriter<W: Write> {
    output: BufWriter<W>,
    is_json: bool,
    name: &'static str,
    /// Counts the lines that were dropped because the queue was full.
    counter: Arc<OnceLock<ErrorCounter>>,
    /// How many dropped lines were reported.
    reported: usize,
    /// Lines written since the last call of `report_dropped_lines`.
    lines_since_report: usize,
}

impl<W: Write> CountingWriter<W> {
    /// Writes a line with the number of lines that were dropped since the last such line, unless it is 0.
    fn report_dropped_lines(&mut self) -> io::Result<()> {
        self.lines_since_report = 0;
        let dropped = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        let lines = dropped.saturating_sub(self.reported);
        if lines == 0 {
            return Ok(());
        }
        let queue = self.name;
        let line = lines::format(self.is_json, || {
            tracing::warn!(
                lines,
                queue,
                "Dropped {lines} lines of the log: standard error was not read fast enough"
            );
        });
        self.output.write_all(&line)?;
        self.reported = dropped;
        Ok(())
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.write_all(line)?;
        self.lines_since_report += 1;
        if self.lines_since_report >= REPORT_INTERVAL_LINES {
            self.report_dropped_lines()?;
        }
        Ok(line.len())
    }

    /// Called when the queue is empty. Lines that arrive together are therefore written in one system call.
    fn flush(&mut self) -> io::Result<()> {
        self.report_dropped_lines()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::{super::lines::Lines, *};

    /// An output that is not read while its lock is held.
    #[derive(Clone, Default)]
    struct Pipe {
        stuck: Arc<Mutex<()>>,
        lines: Lines,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.stuck.lock().unwrap_or_else(PoisonError::into_inner));
            self.lines.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_an_unread_log_are_dropped_and_counted() {
        const EXTRA: usize = 1_000;
        let pipe = Pipe::default();
        let (mut queue, worker) = queue(pipe.clone(), false, "log");
        let stuck = pipe.stuck.lock().unwrap();
        // Enough for the buffer, the queue, and the lines that are dropped.
        let line = [&[b'x'; 1_023][..], b"\n"].concat();
        let lines = QUEUED_LINES_MAX + WRITE_BYTES_MAX / line.len() + EXTRA;
        for _ in 0..lines {
            queue.write_all(&line).unwrap();
        }
        drop(stuck);
        drop(worker);
        let text = String::from_utf8(pipe.lines.take()).unwrap();
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        let reports = text.lines().filter_map(|line| line.split_once("Dropped ")?.1.split_once(" lines"));
        let dropped: usize = reports.map(|(number, _)| number.parse::<usize>().unwrap()).sum();
        // The thread may hold two lines that are in neither the buffer nor the queue.
        assert!(dropped >= EXTRA - 2, "{dropped}");
        assert_eq!(written + dropped, lines);
    }

    #[test]
    fn dropping_the_guard_stops_waiting_for_an_unread_log_after_the_limit() {
        /// Long enough for a busy machine. A guard that waits for the reader never ends.
        const TEST_TIMEOUT: Duration = FINISH_LIMIT.saturating_mul(10);
        let pipe = Pipe::default();
        let (mut queue, worker) = queue(pipe.clone(), false, "log");
        let (_, other) = super::queue(io::sink(), false, "audit");
        let stuck = pipe.stuck.lock().unwrap();
        queue.write_all(b"waits\n").unwrap();
        let guard = LogGuard { workers: Some([worker, other]) };
        let (dropped, end) = mpsc::channel();
        thread::spawn(move || {
            drop(guard);
            dropped.send(()).unwrap();
        });
        assert_eq!(end.recv_timeout(TEST_TIMEOUT), Ok(()));
        drop(stuck);
    }
}
