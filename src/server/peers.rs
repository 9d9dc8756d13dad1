//! What one peer holds at a moment: open connections, calls in flight, streaming calls, and bytes of
//! unfinished requests. All connections of a peer share one account, so that a peer gains nothing by opening
//! more of them.
//!
//! [`ClientAddress::of`] defines which addresses are one peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::domain::ClientAddress;

/// The limits of each peer, and of the bytes of all peers together.
#[derive(Debug, Clone, Copy)]
pub struct PeerLimits {
    /// The most open connections.
    pub connections_max: usize,
    /// The most calls in flight, including answered calls whose request or response is not complete.
    pub calls_max: usize,
    /// The most streaming calls in flight.
    pub streaming_calls_max: usize,
    /// The most bytes of unfinished requests that are kept in memory.
    pub unfinished_bytes_max: usize,
    /// The most bytes of unfinished requests of all peers that are kept in memory.
    pub unfinished_bytes_total_max: usize,
}

impl PeerLimits {
    /// Returns limits on connections only, for the HTTP/1.1 port: a connection has one request at a time.
    pub(super) const fn of_connections(connections_max: usize) -> Self {
        Self {
            connections_max,
            calls_max: usize::MAX,
            streaming_calls_max: usize::MAX,
            unfinished_bytes_max: usize::MAX,
            unfinished_bytes_total_max: usize::MAX,
        }
    }
}

/// The peers with open connections.
#[derive(Clone)]
pub(super) struct Peers {
    connected: Arc<Mutex<HashMap<ClientAddress, Connected>>>,
    limits: PeerLimits,
    unfinished_bytes_total: Arc<AtomicUsize>,
}

struct Connected {
    connections: usize,
    account: Arc<PeerAccount>,
}

impl Peers {
    pub(super) fn new(limits: PeerLimits) -> Self {
        Self { connected: Arc::default(), limits, unfinished_bytes_total: Arc::default() }
    }

    /// Reserves a slot; `None` if the peer has as many connections as it may have.
    pub(super) fn take(&self, address: IpAddr) -> Option<PeerSlot> {
        let peer = ClientAddress::of(address);
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = connected.entry(peer).or_insert_with(|| Connected {
            connections: 0,
            account: Arc::new(PeerAccount::new(self.limits, Arc::clone(&self.unfinished_bytes_total))),
        });
        if of_peer.connections >= self.limits.connections_max {
            return None;
        }
        of_peer.connections += 1;
        Some(PeerSlot { peers: self.clone(), peer, account: Arc::clone(&of_peer.account) })
    }
}

/// The right of a peer to one open connection. Dropping it releases the slot.
pub(super) struct PeerSlot {
    peers: Peers,
    peer: ClientAddress,
    account: Arc<PeerAccount>,
}

impl PeerSlot {
    pub(super) const fn account(&self) -> &Arc<PeerAccount> {
        &self.account
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut connected = self.peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_peer) = connected.entry(self.peer) {
            of_peer.get_mut().connections -= 1;
            if of_peer.get().connections == 0 {
                of_peer.remove();
            }
        }
    }
}

/// What the connections of one peer hold together.
#[derive(Debug)]
pub struct PeerAccount {
    limits: PeerLimits,
    calls: AtomicUsize,
    streaming_calls: AtomicUsize,
    unfinished_bytes: AtomicUsize,
    unfinished_bytes_total: Arc<AtomicUsize>,
}

impl PeerAccount {
    /// Creates the account of a peer. `unfinished_bytes_total` is shared by all peers.
    #[must_use]
    pub fn new(limits: PeerLimits, unfinished_bytes_total: Arc<AtomicUsize>) -> Self {
        Self {
            limits,
            calls: AtomicUsize::new(0),
            streaming_calls: AtomicUsize::new(0),
            unfinished_bytes: AtomicUsize::new(0),
            unfinished_bytes_total,
        }
    }

    /// True if the peer has more calls in flight than it may have.
    #[must_use]
    pub fn has_too_many_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.limits.calls_max
    }

    /// Begins a streaming call; `None` if the peer has as many as it may have.
    #[must_use]
    pub fn try_begin_streaming_call(self: &Arc<Self>) -> Option<StreamingSlot> {
        let slot = StreamingSlot(Arc::clone(self));
        // Count first, compare then, so that concurrent calls cannot exceed the limit. A refused slot is
        // dropped, which takes its count back.
        let earlier = self.streaming_calls.fetch_add(1, Ordering::Relaxed);
        (earlier < self.limits.streaming_calls_max).then_some(slot)
    }
}

/// One of the streaming calls that a peer may have in flight. Dropping it ends the call.
#[derive(Debug)]
pub struct StreamingSlot(Arc<PeerAccount>);

impl Drop for StreamingSlot {
    fn drop(&mut self) {
        self.0.streaming_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The calls in flight of one connection, as counted for its peer.
pub(super) struct CountedCalls {
    account: Arc<PeerAccount>,
    counted: usize,
}

impl CountedCalls {
    pub(super) const fn new(account: Arc<PeerAccount>) -> Self {
        Self { account, counted: 0 }
    }

    pub(super) fn set(&mut self, calls: usize) {
        if calls > self.counted {
            self.account.calls.fetch_add(calls - self.counted, Ordering::Relaxed);
        } else if calls < self.counted {
            self.account.calls.fetch_sub(self.counted - calls, Ordering::Relaxed);
        }
        self.counted = calls;
    }
}

impl Drop for CountedCalls {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes of unfinished requests that are kept in memory. Dropping it releases them.
pub(super) struct HeldBytes {
    account: Arc<PeerAccount>,
    held: usize,
}

impl HeldBytes {
    pub(super) const fn new(account: Arc<PeerAccount>) -> Self {
        Self { account, held: 0 }
    }

    /// Changes the number of bytes, within the limits or not. Returns true if it is within the limits.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let account = &*self.account;
        if bytes <= self.held {
            let released = self.held - bytes;
            if released > 0 {
                account.unfinished_bytes.fetch_sub(released, Ordering::Relaxed);
                account.unfinished_bytes_total.fetch_sub(released, Ordering::Relaxed);
            }
            self.held = bytes;
            return true;
        }
        let more = bytes - self.held;
        let of_peer = account.unfinished_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let total = account.unfinished_bytes_total.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.held = bytes;
        of_peer <= account.limits.unfinished_bytes_max && total <= account.limits.unfinished_bytes_total_max
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> PeerLimits {
        PeerLimits {
            connections_max: 2,
            calls_max: 3,
            streaming_calls_max: 1,
            unfinished_bytes_max: 100,
            unfinished_bytes_total_max: 150,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_gets_at_most_its_slots_and_leaves_no_entry() {
        let peers = Peers::new(limits());
        let (ada, bob) = (address("192.0.2.1"), address("2001:db8::1"));
        let same = address("::ffff:192.0.2.1");
        let (first, second) = (peers.take(ada), peers.take(same));
        assert!(
            first.is_some() && second.is_some() && peers.take(ada).is_none() && peers.take(same).is_none()
        );
        assert!(peers.take(bob).is_some());

        drop(first);
        let third = peers.take(ada);
        assert!(third.is_some());
        drop((second, third));
        assert!(peers.connected.lock().unwrap().is_empty());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_the_slots_of_one_peer() {
        let peers = Peers::new(limits());
        let held: Vec<_> = (0..100)
            .filter_map(|host| peers.take(address(&format!("2001:db8:1:2:{host:x}::{host:x}"))))
            .collect();
        assert_eq!(held.len(), 2);
        assert!(peers.take(address("2001:db8:1:3::1")).is_some(), "another network is another peer");
    }

    #[test]
    fn the_connections_of_a_peer_share_one_account() {
        let peers = Peers::new(limits());
        let [one, two] = ["2001:db8::1", "2001:db8::2"].map(|text| peers.take(address(text)).unwrap());
        let other = peers.take(address("192.0.2.1")).unwrap();

        let slot = one.account().try_begin_streaming_call();
        assert!(slot.is_some() && two.account().try_begin_streaming_call().is_none());
        assert!(other.account().try_begin_streaming_call().is_some());
        drop(slot);
        assert!(two.account().try_begin_streaming_call().is_some());

        let mut calls = CountedCalls::new(Arc::clone(one.account()));
        calls.set(4);
        assert!(two.account().has_too_many_calls() && !other.account().has_too_many_calls());
        calls.set(3);
        assert!(!two.account().has_too_many_calls());
    }

    #[test]
    fn bytes_are_limited_for_each_peer_and_in_total() {
        let peers = Peers::new(limits());
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|text| peers.take(address(text)).unwrap());
        let held = |slot: &PeerSlot| HeldBytes::new(Arc::clone(slot.account()));
        let (mut of_one, mut also_of_one, mut of_two) = (held(&one), held(&one), held(&two));

        assert!(of_one.set(60) && !also_of_one.set(41) && also_of_one.set(40));
        assert!(!of_two.set(51) && of_two.set(50), "the total is limited");
        drop((of_one, also_of_one));
        assert!(of_two.set(100) && !of_two.set(101));
        drop(of_two);
        assert_eq!(peers.unfinished_bytes_total.load(Ordering::Relaxed), 0);
    }
}
