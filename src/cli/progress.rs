//! How far a long work is: a bar on a terminal, lines in a log.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{clock::Clock, import::Progress, store::Written};

/// Between two lines of a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const BAR: &str = "{msg} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left";

/// Shows the progress of a command on standard error.
pub(super) struct Shown {
    clock: Clock,
    bar: Option<ProgressBar>,
    line: Option<Line>,
    told: (Written, u64),
}

/// A part of the work, as a log tells it.
struct Line {
    what: &'static str,
    total: u64,
    done: u64,
    began: Instant,
    told: Instant,
}

impl Shown {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, bar: None, line: None, told: (Written::default(), 0) }
    }
}

impl Progress for Shown {
    fn begin(&mut self, what: &'static str, total: u64) {
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(total).with_style(style).with_message(what));
        } else {
            let now = self.clock.instant();
            self.line = Some(Line { what, total, done: 0, began: now, told: now });
        }
    }

    fn advance(&mut self, rows: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(rows);
        }
        let Some(line) = &mut self.line else { return };
        line.done += rows;
        let now = self.clock.instant();
        if now.duration_since(line.told) >= LINE_INTERVAL {
            line.told = now;
            line.tell(now);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(line) = self.line.take() {
            let seconds = self.clock.instant().duration_since(line.began).as_secs_f32();
            tracing::info!(
                what = line.what,
                done = line.done,
                "{}: {} rows in {seconds:.1} s",
                line.what,
                line.done
            );
        }
    }

    fn follows(&mut self, written: Written, open: u64) {
        if (written, open) != self.told {
            self.told = (written, open);
            tracing::info!(
                imported = written.inserted,
                updated = written.updated,
                open,
                "Follows the source: {} users imported and {} updated since the start, {open} conflicts open; stop with Ctrl-C or SIGTERM",
                written.inserted,
                written.updated
            );
        }
    }
}

impl Line {
    fn tell(&self, now: Instant) {
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
