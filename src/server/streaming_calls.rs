//! The streaming calls in flight of one account, and which of them ends when all places are taken.
//!
//! Clients without a token can share an address, as behind a proxy. If some of them take all places, a new
//! `Watch` gets the place of the oldest call of the connection with the most of them. So a client with one
//! stream on a connection of its own keeps it for as long as another connection has two.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

/// The number of streaming calls of one connection.
pub(super) type StreamsOfConnection = Arc<AtomicUsize>;

/// The streaming calls of one account.
#[derive(Debug, Default)]
pub(super) struct StreamingCalls(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// The number of calls that have begun, which is the number of the newest one.
    begun: u64,
    /// The calls by their numbers, the oldest one first.
    calls: BTreeMap<u64, OpenCall>,
}

#[derive(Debug)]
struct OpenCall {
    of_connection: StreamsOfConnection,
    /// Cancelled when another call gets the place.
    displaced: CancellationToken,
}

impl Open {
    fn remove(&mut self, number: u64) -> Option<OpenCall> {
        let removed = self.calls.remove(&number)?;
        removed.of_connection.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }

    /// Ends the oldest call of the connection with the most calls.
    fn displace(&mut self) {
        let most = self
            .calls
            .iter()
            .max_by_key(|(number, call)| (call.of_connection.load(Ordering::Relaxed), Reverse(**number)));
        if let Some(displaced) = most.map(|(number, _)| *number).and_then(|number| self.remove(number)) {
            displaced.displaced.cancel();
        }
    }
}

impl StreamingCalls {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call of a connection. If all `max` places are taken, it gets that of another call if
    /// `may_displace` is set; otherwise returns `None`.
    pub(super) fn begin(
        self: &Arc<Self>,
        of_connection: &StreamsOfConnection,
        max: usize,
        may_displace: bool,
    ) -> Option<StreamingSlot> {
        let mut open = self.lock();
        if open.calls.len() >= max {
            if !may_displace {
                return None;
            }
            open.displace();
        }
        open.begun += 1;
        let (number, displaced) = (open.begun, CancellationToken::new());
        of_connection.fetch_add(1, Ordering::Relaxed);
        let call = OpenCall { of_connection: Arc::clone(of_connection), displaced: displaced.clone() };
        open.calls.insert(number, call);
        drop(open);
        Some(StreamingSlot { calls: Arc::clone(self), number, displaced })
    }
}

/// The place of a streaming call in flight. Dropping it releases the place.
#[derive(Debug)]
pub struct StreamingSlot {
    calls: Arc<StreamingCalls>,
    number: u64,
    displaced: CancellationToken,
}

impl StreamingSlot {
    /// Waits until another call gets the place of this one.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + use<> {
        self.displaced.clone().cancelled_owned()
    }
}

impl Drop for StreamingSlot {
    fn drop(&mut self) {
        // A displaced call is not in the list any more.
        self.calls.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_displaced<'a>(slots: impl IntoIterator<Item = &'a StreamingSlot>) -> Vec<bool> {
        slots.into_iter().map(|slot| slot.displaced.is_cancelled()).collect()
    }

    #[test]
    fn a_place_is_free_when_its_call_ends() {
        let (calls, connection) = (Arc::new(StreamingCalls::default()), StreamsOfConnection::default());
        let (max, may_displace) = (1, false);
        let first = calls.begin(&connection, max, may_displace);
        assert!(first.is_some() && calls.begin(&connection, max, may_displace).is_none());
        drop(first);
        assert!(calls.begin(&connection, max, may_displace).is_some());
        assert_eq!(connection.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_new_call_gets_the_place_of_the_oldest_of_the_connection_with_the_most() {
        let calls = Arc::new(StreamingCalls::default());
        let [monitor, stranger, third] = [(); 3].map(|()| StreamsOfConnection::default());
        let (max, may_displace) = (3, true);
        let begin = |connection| calls.begin(connection, max, may_displace).unwrap();
        let watch = begin(&monitor);
        let of_stranger: Vec<_> = (0..5).map(|_| begin(&stranger)).collect();
        assert_eq!(are_displaced(&of_stranger), [true, true, true, false, false]);

        let of_third = begin(&third);
        assert_eq!(are_displaced([&of_stranger[3], &of_stranger[4], &watch]), [true, false, false]);
        // Each connection has one: the oldest of all.
        let newest = begin(&third);
        assert_eq!(are_displaced([&watch, &of_stranger[4], &of_third, &newest]), [true, false, false, false]);

        drop((watch, of_stranger, of_third, newest));
        assert!(calls.lock().calls.is_empty());
        assert_eq!([monitor, stranger, third].map(|count| count.load(Ordering::Relaxed)), [0, 0, 0]);
    }
}
