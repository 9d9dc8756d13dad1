//! What one peer holds at a moment besides its connections: calls in flight, streaming calls, and bytes of
//! unfinished requests.
//!
//! A peer has two accounts, since strangers can share an address with an authenticated caller. A connection
//! uses the account of the strangers until a caller is authenticated on it, and that of the callers from then
//! on. Calls without a token therefore take nothing from the callers at the same address.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

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

#[cfg(test)]
impl PeerLimits {
    /// Returns low limits.
    pub(super) const fn of_tests() -> Self {
        Self {
            connections_max: 2,
            calls_max: 3,
            streaming_calls_max: 1,
            unfinished_bytes_max: 100,
            unfinished_bytes_total_max: 150,
        }
    }
}

/// The bytes of unfinished requests of all peers: of strangers, and of callers.
#[derive(Debug, Clone, Default)]
pub(super) struct UnfinishedTotals {
    strangers: Arc<AtomicUsize>,
    callers: Arc<AtomicUsize>,
}

impl UnfinishedTotals {
    #[cfg(test)]
    pub(super) fn are_zero(&self) -> bool {
        [&self.strangers, &self.callers].iter().all(|total| total.load(Ordering::Relaxed) == 0)
    }
}

/// The two accounts of one peer, which all its connections share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct PeerAccounts {
    strangers: Arc<Account>,
    callers: Arc<Account>,
}

impl PeerAccounts {
    pub(super) fn new(limits: PeerLimits, totals: &UnfinishedTotals) -> Self {
        let account = |total: &Arc<AtomicUsize>| Arc::new(Account::new(limits, Arc::clone(total)));
        Self { strangers: account(&totals.strangers), callers: account(&totals.callers) }
    }
}

/// The account of a connection: one of the two accounts of its peer.
#[derive(Debug)]
pub struct ConnectionAccount {
    accounts: PeerAccounts,
    is_authenticated: AtomicBool,
}

impl ConnectionAccount {
    pub(super) const fn new(accounts: PeerAccounts) -> Self {
        Self { accounts, is_authenticated: AtomicBool::new(false) }
    }

    /// Creates the account of the only connection of a peer.
    #[must_use]
    pub fn of_only_connection(limits: PeerLimits) -> Self {
        Self::new(PeerAccounts::new(limits, &UnfinishedTotals::default()))
    }

    /// Makes the connection use the account of the callers of its peer, because a caller was authenticated on
    /// it.
    pub fn set_authenticated(&self) {
        // Most calls find it set, and a read does not take the cache line from other threads.
        if !self.is_authenticated.load(Ordering::Relaxed) {
            self.is_authenticated.store(true, Ordering::Relaxed);
        }
    }

    fn current(&self) -> &Arc<Account> {
        self.account(false)
    }

    /// Returns the account of the strangers if `is_of_strangers` is set, otherwise that of the connection.
    fn account(&self, is_of_strangers: bool) -> &Arc<Account> {
        if !is_of_strangers && self.is_authenticated.load(Ordering::Relaxed) {
            &self.accounts.callers
        } else {
            &self.accounts.strangers
        }
    }

    /// True if more calls are in flight than the peer may have.
    #[must_use]
    pub fn has_too_many_calls(&self) -> bool {
        let account = self.current();
        account.calls.load(Ordering::Relaxed) > account.limits.calls_max
    }

    /// Begins a streaming call; `None` if the peer has as many as it may have.
    #[must_use]
    pub fn try_begin_streaming_call(&self) -> Option<StreamingSlot> {
        let account = self.current();
        let slot = StreamingSlot(Arc::clone(account));
        // Count first, compare then, so that concurrent calls cannot exceed the limit. A refused slot is
        // dropped, which takes its count back.
        let earlier = account.streaming_calls.fetch_add(1, Ordering::Relaxed);
        (earlier < account.limits.streaming_calls_max).then_some(slot)
    }
}

/// What connections hold together.
#[derive(Debug)]
struct Account {
    limits: PeerLimits,
    calls: AtomicUsize,
    streaming_calls: AtomicUsize,
    unfinished_bytes: AtomicUsize,
    unfinished_bytes_total: Arc<AtomicUsize>,
}

impl Account {
    const fn new(limits: PeerLimits, unfinished_bytes_total: Arc<AtomicUsize>) -> Self {
        Self {
            limits,
            calls: AtomicUsize::new(0),
            streaming_calls: AtomicUsize::new(0),
            unfinished_bytes: AtomicUsize::new(0),
            unfinished_bytes_total,
        }
    }
}

/// One of the streaming calls that a peer may have in flight. Dropping it ends the call.
#[derive(Debug)]
pub struct StreamingSlot(Arc<Account>);

impl Drop for StreamingSlot {
    fn drop(&mut self) {
        self.0.streaming_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The calls in flight of one connection, as counted for its peer.
pub(super) struct CountedCalls {
    connection: Arc<ConnectionAccount>,
    /// The account in which `counted` is counted.
    account: Arc<Account>,
    counted: usize,
}

impl CountedCalls {
    pub(super) fn new(connection: Arc<ConnectionAccount>) -> Self {
        let account = Arc::clone(connection.current());
        Self { connection, account, counted: 0 }
    }

    pub(super) fn set(&mut self, calls: usize) {
        let current = self.connection.current();
        if !Arc::ptr_eq(current, &self.account) {
            self.account.calls.fetch_sub(self.counted, Ordering::Relaxed);
            self.counted = 0;
            self.account = Arc::clone(current);
        }
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
    connection: Arc<ConnectionAccount>,
    /// Whether the bytes stay in the account of the strangers.
    is_of_strangers: bool,
    /// The account in which `held` is counted.
    account: Arc<Account>,
    held: usize,
}

impl HeldBytes {
    /// Counts bytes in the account of the connection.
    pub(super) fn new(connection: Arc<ConnectionAccount>) -> Self {
        Self::of_request(connection, false)
    }

    /// Counts the bytes of a request in the account of the connection or, if it needs no caller, always in
    /// that of the strangers.
    pub(super) fn of_request(connection: Arc<ConnectionAccount>, is_of_strangers: bool) -> Self {
        let account = Arc::clone(connection.account(is_of_strangers));
        Self { connection, is_of_strangers, account, held: 0 }
    }

    /// Changes the number of bytes, within the limits or not. Returns true if it is within the limits.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if bytes <= self.held {
            self.release(self.held - bytes);
            return true;
        }
        let current = self.connection.account(self.is_of_strangers);
        if !Arc::ptr_eq(current, &self.account) {
            let current = Arc::clone(current);
            self.release(self.held);
            self.account = current;
        }
        let more = bytes - self.held;
        let account = &*self.account;
        let of_peer = account.unfinished_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let total = account.unfinished_bytes_total.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.held = bytes;
        of_peer <= account.limits.unfinished_bytes_max && total <= account.limits.unfinished_bytes_total_max
    }

    fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.account.unfinished_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.account.unfinished_bytes_total.fetch_sub(bytes, Ordering::Relaxed);
            self.held -= bytes;
        }
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

    fn connection(accounts: &PeerAccounts) -> Arc<ConnectionAccount> {
        Arc::new(ConnectionAccount::new(accounts.clone()))
    }

    #[test]
    fn the_connections_of_a_peer_share_one_account() {
        let totals = UnfinishedTotals::default();
        let [peer, other] = [(); 2].map(|()| PeerAccounts::new(PeerLimits::of_tests(), &totals));
        let (one, two, other) = (connection(&peer), connection(&peer), connection(&other));

        let slot = one.try_begin_streaming_call();
        assert!(slot.is_some() && two.try_begin_streaming_call().is_none());
        assert!(other.try_begin_streaming_call().is_some());
        drop(slot);
        assert!(two.try_begin_streaming_call().is_some());

        let mut calls = CountedCalls::new(Arc::clone(&one));
        calls.set(4);
        assert!(two.has_too_many_calls() && !other.has_too_many_calls());
        calls.set(3);
        assert!(!two.has_too_many_calls());
    }

    #[test]
    fn bytes_are_limited_for_each_peer_and_in_total() {
        let totals = UnfinishedTotals::default();
        let [one, two] = [(); 2].map(|()| connection(&PeerAccounts::new(PeerLimits::of_tests(), &totals)));
        let held = |connection: &Arc<ConnectionAccount>| HeldBytes::new(Arc::clone(connection));
        let (mut of_one, mut also_of_one, mut of_two) = (held(&one), held(&one), held(&two));

        assert!(of_one.set(60) && !also_of_one.set(41) && also_of_one.set(40));
        assert!(!of_two.set(51) && of_two.set(50), "the total is limited");
        drop((of_one, also_of_one));
        assert!(of_two.set(100) && !of_two.set(101));
        drop(of_two);
        assert!(totals.are_zero());
    }

    #[test]
    fn strangers_take_nothing_from_the_callers_at_their_address() {
        let totals = UnfinishedTotals::default();
        let peer = PeerAccounts::new(PeerLimits::of_tests(), &totals);
        let (stranger, caller) = (connection(&peer), connection(&peer));
        let mut calls = CountedCalls::new(Arc::clone(&stranger));
        let mut held = HeldBytes::new(Arc::clone(&stranger));
        calls.set(4);
        let slot = stranger.try_begin_streaming_call();
        assert!(held.set(100) && slot.is_some());

        let mut of_caller = HeldBytes::new(Arc::clone(&caller));
        assert!(caller.has_too_many_calls() && !of_caller.set(1), "not authenticated yet");
        caller.set_authenticated();
        assert!(!caller.has_too_many_calls() && caller.try_begin_streaming_call().is_some());
        assert!(of_caller.set(100) && !of_caller.set(101));
        drop((held, of_caller));
        assert!(totals.are_zero());
    }

    #[test]
    fn what_a_connection_holds_moves_to_the_callers_with_it() {
        let totals = UnfinishedTotals::default();
        let peer = PeerAccounts::new(PeerLimits::of_tests(), &totals);
        let (one, stranger) = (connection(&peer), connection(&peer));
        let (mut calls, mut held) = (CountedCalls::new(Arc::clone(&one)), HeldBytes::new(Arc::clone(&one)));
        calls.set(4);
        assert!(held.set(90));
        one.set_authenticated();
        calls.set(4);
        assert!(held.set(91));

        assert!(one.has_too_many_calls() && !stranger.has_too_many_calls());
        assert!(HeldBytes::new(Arc::clone(&stranger)).set(100));
        drop((calls, held));
        assert!(!one.has_too_many_calls() && totals.are_zero());
    }
}
