//! The events that wait to be written, and the rows to which further equal events are added.
//!
//! Equal events of a minute become one row with a count. The number of different ones is limited, with
//! budgets for unauthenticated callers, for each other caller, and for the refusals and the reads of each
//! account: a flood in one budget uses up no other one. An event beyond its budget loses its addresses, its
//! agent and its resource. An event about an account keeps the account, unless too many accounts wait
//! ([`ACCOUNTS_WAITING_MAX`]).

mod event;
mod limiter;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

pub(super) use self::event::QueuedEvent;
use self::{event::EventKey, limiter::Limiter};
use super::AuditLimits;
use crate::domain::{AuditEvent, Timestamp};

/// Time in which equal events become one row.
const WINDOW: Duration = Duration::from_mins(1);

/// Maximum number of accounts with waiting refusals, and of accounts with waiting reads: some megabytes.
/// All events are written when half as many events wait, so this is reached only if the database is slower
/// than the calls.
const ACCOUNTS_WAITING_MAX: usize = 10_000;

/// Maximum number of rows of one window in memory: some tens of megabytes. Beyond it a new window begins:
/// equal events begin new rows, and no event is lost.
const ROWS_REMEMBERED_MAX: usize = 50_000;

/// Different events in the order of their arrival.
#[derive(Debug, Default)]
struct Merged {
    events: Vec<(EventKey, QueuedEvent)>,
    index: HashMap<EventKey, usize>,
}

impl Merged {
    fn contains(&self, key: &EventKey) -> bool {
        self.index.contains_key(key)
    }

    fn add(&mut self, key: EventKey, queued: QueuedEvent) {
        let known = self.index.get(&key).and_then(|index| self.events.get_mut(*index));
        if let Some((_, known)) = known {
            known.event.count = known.event.count.saturating_add(queued.event.count);
        } else {
            self.index.insert(key.clone(), self.events.len());
            self.events.push((key, queued));
        }
    }
}

/// The events since the last write.
#[derive(Debug)]
pub(super) struct Waiting {
    limiter: Limiter,
    merged: Merged,
}

impl Waiting {
    pub(super) fn new(limits: AuditLimits) -> Self {
        Self { limiter: Limiter::new(limits, ACCOUNTS_WAITING_MAX), merged: Merged::default() }
    }

    /// Adds an event. True if the events should be written without delay.
    pub(super) fn add(&mut self, queued: QueuedEvent) -> bool {
        let (key, queued) = self.limiter.admit(queued, |key| self.merged.contains(key));
        self.merged.add(key, queued);
        self.merged.events.len() >= ACCOUNTS_WAITING_MAX / 2
    }

    /// Removes and returns all events.
    pub(super) fn take(&mut self) -> Vec<QueuedEvent> {
        let empty = Self::new(self.limiter.limits);
        let merged = std::mem::replace(self, empty).merged;
        merged.events.into_iter().map(|(_, queued)| queued).collect()
    }
}

/// An event to be written.
#[derive(Debug)]
pub(super) struct Pending {
    key: EventKey,
    pub(super) event: AuditEvent,
    /// The row with the equal events of this minute, if there is one.
    pub(super) row: Option<i64>,
}

/// The rows of the current minute, and what is left of its budgets.
#[derive(Debug)]
pub(super) struct Window {
    /// The end of the minute.
    until: Timestamp,
    limiter: Limiter,
    /// The row of each key; `None` if it is not written yet, or could not be written.
    rows: HashMap<EventKey, Option<i64>>,
}

impl Window {
    pub(super) fn new(limits: AuditLimits) -> Self {
        // `Waiting` and `ROWS_REMEMBERED_MAX` limit the number of accounts.
        let limiter = Limiter::new(limits, usize::MAX);
        Self { until: Timestamp::from_unix_micros(i64::MIN), limiter, rows: HashMap::new() }
    }

    /// Merges the events, whose accounts have been looked up, with those of the same minute.
    pub(super) fn arrange(&mut self, queued: Vec<QueuedEvent>, now: Timestamp) -> Vec<Pending> {
        // A window that ends later than one that begins now was set by a wrong clock.
        let is_over = self.until <= now || self.until.since(now) > WINDOW;
        if is_over || self.rows.len() >= ROWS_REMEMBERED_MAX {
            *self = Self { until: now.plus(WINDOW), ..Self::new(self.limiter.limits) };
        }
        let mut merged = Merged::default();
        for queued in queued {
            let is_known = |key: &EventKey| merged.contains(key) || self.rows.contains_key(key);
            let (key, queued) = self.limiter.admit(queued, is_known);
            merged.add(key, queued);
        }
        let pending = merged.events.into_iter().map(|(key, QueuedEvent { event, .. })| {
            let row = *self.rows.entry(key.clone()).or_default();
            Pending { key, event, row }
        });
        pending.collect()
    }

    /// Remembers the rows in which these events were written.
    pub(super) fn remember(&mut self, written: &[Pending], rows: &[i64]) {
        for (pending, row) in written.iter().zip(rows) {
            self.rows.insert(pending.key.clone(), Some(*row));
        }
    }
}
