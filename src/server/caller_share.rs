//! What one caller may take of what all callers share, from however many addresses it calls.
//!
//! The limits of a peer do not bound a caller: its instances are many peers, and so are the machines of
//! a thief of its service token.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The part of a total that one caller may take. A quarter: three callers together leave something to the
/// others, and by default the unfinished requests of one caller may reach the limits of eight peers.
const PART_OF_TOTAL: usize = 4;

/// A caller may have this many bytes of unfinished requests even if the total is low, but at most half of the
/// total. A call with many headers fits into them.
const BYTES_MIN: usize = 64 * 1024;

/// The shares of all callers of a port. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct CallerShares {
    waiting: Arc<WaitingTotal>,
    waiting_bytes_max: usize,
    /// The shares of the callers that were authenticated since the start: at most one for each name that the
    /// callers file has had.
    by_name: Arc<Mutex<HashMap<String, Arc<CallerShare>>>>,
    unfinished_bytes_max: usize,
    connections_max: usize,
}

impl CallerShares {
    /// Divides the totals of a port.
    pub(super) fn new(
        unfinished_bytes_total_max: usize,
        waiting_bytes_total_max: usize,
        connections_total_max: usize,
    ) -> Self {
        let bytes_min = BYTES_MIN.min(unfinished_bytes_total_max / 2);
        Self {
            waiting: Arc::new(WaitingTotal::new(waiting_bytes_total_max)),
            waiting_bytes_max: waiting_bytes_total_max / PART_OF_TOTAL,
            by_name: Arc::default(),
            unfinished_bytes_max: (unfinished_bytes_total_max / PART_OF_TOTAL).max(bytes_min),
            connections_max: (connections_total_max / PART_OF_TOTAL).max(1),
        }
    }

    /// Returns the count of the bytes of all requests that wait for their answer.
    pub(super) const fn waiting(&self) -> &Arc<WaitingTotal> {
        &self.waiting
    }

    /// Returns the share of the caller with this name.
    pub(super) fn of(&self, caller: &str) -> Arc<CallerShare> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = by_name.get(caller) {
            return Arc::clone(share);
        }
        let share = Arc::new(CallerShare {
            name: caller.to_owned(),
            unfinished_bytes: AtomicUsize::new(0),
            unfinished_bytes_max: self.unfinished_bytes_max,
            waiting_bytes: AtomicUsize::new(0),
            waiting_bytes_max: self.waiting_bytes_max,
            kept_connections: AtomicUsize::new(0),
            kept_connections_max: self.connections_max,
        });
        by_name.insert(caller.to_owned(), Arc::clone(&share));
        share
    }
}

impl Default for CallerShares {
    /// Returns shares without limits.
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX, usize::MAX)
    }
}

/// The bytes of the requests of all callers that wait for their answer.
#[derive(Debug)]
pub(super) struct WaitingTotal {
    bytes: AtomicUsize,
    max: usize,
}

impl WaitingTotal {
    const fn new(max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max }
    }

    /// Adds bytes. Returns true if there are at most as many as there may be.
    pub(super) fn add(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.max
    }

    /// Takes back bytes that were added.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one caller holds.
#[derive(Debug)]
pub(super) struct CallerShare {
    name: String,
    unfinished_bytes: AtomicUsize,
    unfinished_bytes_max: usize,
    waiting_bytes: AtomicUsize,
    waiting_bytes_max: usize,
    kept_connections: AtomicUsize,
    kept_connections_max: usize,
}

impl CallerShare {
    /// True if this is the share of the caller with this name.
    pub(super) fn is_of(&self, caller: &str) -> bool {
        self.name == caller
    }

    /// Adds bytes of unfinished requests. Returns true if the caller then has at most as many as it may have;
    /// otherwise the bytes count all the same, until they are released.
    pub(super) fn add_unfinished(&self, bytes: usize) -> bool {
        let all = self.unfinished_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        all <= self.unfinished_bytes_max
    }

    /// Adds bytes of requests that wait for their answer. Returns true if the caller has at most as many as
    /// it may have.
    pub(super) fn add_waiting(&self, bytes: usize) -> bool {
        let all = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        all <= self.waiting_bytes_max
    }

    /// Takes back waiting bytes that were added.
    pub(super) fn release_waiting(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes back unfinished bytes that were added.
    pub(super) fn release_unfinished(&self, bytes: usize) {
        self.unfinished_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One of the connections that a caller keeps although others need a place. Dropping the value takes the
/// connection out of the count.
#[derive(Debug)]
pub(super) struct KeptConnection(Arc<CallerShare>);

impl KeptConnection {
    /// Counts one more connection. Returns `None` if the caller already keeps as many as it may.
    pub(super) fn of(share: &Arc<CallerShare>) -> Option<Self> {
        let kept = Self(Arc::clone(share));
        // Count first, compare then. What is refused is dropped, which takes its count back.
        let earlier = share.kept_connections.fetch_add(1, Ordering::Relaxed);
        (earlier < share.kept_connections_max).then_some(kept)
    }
}

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.0.kept_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_a_quarter_of_the_unfinished_bytes_and_leaves_the_rest_to_others() {
        let shares = CallerShares::new(1_000_000, 0, 100);
        let (one, other) = (shares.of("one"), shares.of("other"));

        assert!(one.add_unfinished(250_000) && !shares.of("one").add_unfinished(1));
        assert!(other.add_unfinished(250_000));
        one.release_unfinished(250_001);
        assert!(one.add_unfinished(250_000));
    }

    #[test]
    fn a_caller_may_take_half_of_a_low_total_up_to_the_minimum() {
        for (total, of_one) in [(64 * 1024, 32 * 1024), (128 * 1024, 64 * 1024), (160 * 1024, 64 * 1024)] {
            let shares = CallerShares::new(total, 0, 1);
            assert!(shares.of("one").add_unfinished(of_one) && !shares.of("one").add_unfinished(1));
        }
    }

    #[test]
    fn a_caller_keeps_a_quarter_of_the_connections() {
        let shares = CallerShares::new(0, 0, 8);
        let share = shares.of("one");
        let kept = [(); 2].map(|()| KeptConnection::of(&share).unwrap());

        assert!(KeptConnection::of(&share).is_none());
        assert!(KeptConnection::of(&shares.of("other")).is_some());
        drop(kept);
        assert!(KeptConnection::of(&share).is_some());
    }
}
