//! Progress of long commands: a bar on a terminal, otherwise log lines.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    clock::Clock,
    import::{Progress, WrittenUsers},
};

/// Interval between two log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const BAR: &str = "{msg} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left";

/// Shows the progress of a command on standard error.
pub(super) struct TerminalProgress {
    clock: Clock,
    bar: Option<ProgressBar>,
    part: Option<LoggedPart>,
    /// The numbers that [`Progress::report_round`] logged last.
    logged: (WrittenUsers, u64),
}

/// The current part of the work, if its progress is logged.
struct LoggedPart {
    what: &'static str,
    total: u64,
    done: u64,
    began: Instant,
    logged_at: Instant,
}

impl TerminalProgress {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, bar: None, part: None, logged: (WrittenUsers::default(), 0) }
    }
}

impl Progress for TerminalProgress {
    fn begin(&mut self, what: &'static str, total: u64) {
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(total).with_style(style).with_message(what));
        } else {
            let now = self.clock.instant();
            self.part = Some(LoggedPart { what, total, done: 0, began: now, logged_at: now });
        }
    }

    fn advance(&mut self, rows: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(rows);
        }
        let Some(part) = &mut self.part else { return };
        part.done += rows;
        let now = self.clock.instant();
        if now.duration_since(part.logged_at) >= LINE_INTERVAL {
            part.logged_at = now;
            part.log(now);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(part) = self.part.take() {
            let seconds = self.clock.instant().duration_since(part.began).as_secs_f32();
            tracing::info!(
                what = part.what,
                done = part.done,
                "{}: {} rows in {seconds:.1} s",
                part.what,
                part.done
            );
        }
    }

    fn report_round(&mut self, written: WrittenUsers, open: u64) {
        if (written, open) != self.logged {
            self.logged = (written, open);
            tracing::info!(
                imported = written.inserted,
                updated = written.updated,
                open,
                "Following the source: {} users imported and {} updated since the start, {open} conflicts open; stop with Ctrl-C or SIGTERM",
                written.inserted,
                written.updated
            );
        }
    }
}

impl LoggedPart {
    /// Logs the progress, with the rate and the estimated time that is left.
    fn log(&self, now: Instant) {
        let Self { what, total, done, began, .. } = self;
        let seconds = now.duration_since(*began).as_secs().max(1);
        let rate = (done / seconds).max(1);
        let left = Duration::from_secs(total.saturating_sub(*done) / rate);
        tracing::info!(
            what,
            done,
            total,
            rate,
            "{what}: {done} of {total} rows, {rate}/s, about {left:?} left"
        );
    }
}
