//! What one peer holds at a moment besides its connections: calls in flight, streaming calls, and bytes of
//! unfinished requests.
//!
//! A peer has two accounts, since strangers can share an address with an authenticated caller. A connection
//! uses the account of the strangers until a caller is authenticated on it, and that of the callers from then
//! on. Calls without a token therefore take nothing from the callers at the same address.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::{
    caller_share::{CallerShare, CallerShares, KeptConnection, WaitingTotal},
    streaming_calls::{StreamingCalls, StreamingSlot, StreamsOfConnection},
};

/// While a peer has too many calls, a call of health passes if its connection has at most this many calls in
/// flight. A client that checks the health has one such call at a time.
const CALLS_WITH_HEALTH_MAX: usize = 4;

/// The limits of each peer, and of the bytes of all peers together. Each limit of a peer applies to each of
/// its two accounts, except `connections_max`, which applies to both together.
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
    /// The most bytes of unfinished requests of all callers that are kept in memory, and as much again of all
    /// strangers.
    pub unfinished_bytes_total_max: usize,
    /// The most bytes of requests of all peers that have arrived and wait for their answer.
    pub waiting_bytes_total_max: usize,
}

impl PeerLimits {
    /// Returns limits on connections only, for the HTTP port, where a connection has one request at a time.
    pub(super) const fn of_connections(connections_max: usize) -> Self {
        Self {
            connections_max,
            calls_max: usize::MAX,
            streaming_calls_max: usize::MAX,
            unfinished_bytes_max: usize::MAX,
            unfinished_bytes_total_max: usize::MAX,
            waiting_bytes_total_max: usize::MAX,
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
            waiting_bytes_total_max: 1_000,
        }
    }
}

/// The bytes of unfinished requests of all peers: of strangers, and of callers.
#[derive(Debug, Clone, Default)]
pub(super) struct UnfinishedTotals {
    strangers: Arc<AtomicUsize>,
    callers: Arc<AtomicUsize>,
    shares: CallerShares,
}

impl UnfinishedTotals {
    /// Creates totals of which each caller may take these shares.
    pub(super) fn new(shares: CallerShares) -> Self {
        Self { shares, ..Self::default() }
    }

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
    shares: CallerShares,
}

impl PeerAccounts {
    pub(super) fn new(limits: PeerLimits, totals: &UnfinishedTotals) -> Self {
        let account = |total: &Arc<AtomicUsize>| Arc::new(Account::new(limits, Arc::clone(total)));
        let shares = totals.shares.clone();
        Self { strangers: account(&totals.strangers), callers: account(&totals.callers), shares }
    }
}

/// The account of a connection: one of the two accounts of its peer.
#[derive(Debug)]
pub struct ConnectionAccount {
    accounts: PeerAccounts,
    is_authenticated: AtomicBool,
    /// Whether a call has succeeded, other than one of health, which needs no caller.
    has_served: AtomicBool,
    /// The caller that was authenticated last. Callers can share a connection through a proxy.
    caller: Mutex<Option<Arc<CallerShare>>>,
    /// Set if the first caller keeps the connection although others need a place.
    kept: Mutex<Option<KeptConnection>>,
    /// The calls in flight of this connection alone.
    calls: AtomicUsize,
    streaming_calls: StreamsOfConnection,
    /// Whether a call of health holds the memory that each connection has for one.
    has_health_call: AtomicBool,
    displaced: Notify,
}

impl ConnectionAccount {
    pub(super) fn new(accounts: PeerAccounts) -> Self {
        Self {
            accounts,
            is_authenticated: AtomicBool::new(false),
            has_served: AtomicBool::new(false),
            caller: Mutex::new(None),
            kept: Mutex::new(None),
            calls: AtomicUsize::new(0),
            streaming_calls: StreamsOfConnection::default(),
            has_health_call: AtomicBool::new(false),
            displaced: Notify::new(),
        }
    }

    /// Creates the account of the only connection of a peer.
    #[must_use]
    pub fn of_only_connection(limits: PeerLimits) -> Self {
        Self::new(PeerAccounts::new(limits, &UnfinishedTotals::default()))
    }

    /// Makes the connection use the account of the callers of its peer, and the share of this caller, because
    /// the caller was authenticated on it.
    pub fn set_authenticated(&self, caller: &str) {
        let mut current = lock(&self.caller);
        if current.as_ref().is_some_and(|share| share.is_of(caller)) {
            return;
        }
        let share = self.accounts.shares.of(caller);
        if !self.is_authenticated.swap(true, Ordering::Relaxed) {
            *lock(&self.kept) = KeptConnection::of(&share);
        }
        *current = Some(share);
    }

    /// Marks the connection as one on which a call has succeeded.
    pub fn set_served(&self) {
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// True if a call has succeeded on the connection, other than one of health.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Relaxed)
    }

    /// Returns the share of the caller that was authenticated last.
    pub(super) fn share(&self) -> Option<Arc<CallerShare>> {
        lock(&self.caller).clone()
    }

    /// Returns the count of the bytes of all requests that wait for their answer.
    pub(super) const fn waiting_total(&self) -> &Arc<WaitingTotal> {
        self.accounts.shares.waiting()
    }

    /// True if no caller was authenticated on the connection.
    pub(super) fn is_of_strangers(&self) -> bool {
        !self.is_authenticated.load(Ordering::Relaxed)
    }

    /// True if a caller keeps the connection although others need a place.
    pub(super) fn is_kept(&self) -> bool {
        lock(&self.kept).is_some()
    }

    /// Ends the connection, because another one gets its place.
    pub(super) fn displace(&self) {
        self.displaced.notify_one();
    }

    /// Waits until another connection gets the place of this one.
    pub(super) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// Returns the account of the connection.
    fn current(&self) -> &Arc<Account> {
        let is_of_health = false;
        self.account(is_of_health)
    }

    /// Returns the account of the strangers if `is_of_health` is set, otherwise that of the connection.
    pub(super) fn account(&self, is_of_health: bool) -> &Arc<Account> {
        if !is_of_health && self.is_authenticated.load(Ordering::Relaxed) {
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

    /// Takes the memory that each connection has for one unfinished call of health. Returns false if another
    /// call has it.
    pub(super) fn try_begin_health_call(&self) -> bool {
        !self.has_health_call.swap(true, Ordering::Relaxed)
    }

    /// Gives that memory back.
    pub(super) fn end_health_call(&self) {
        self.has_health_call.store(false, Ordering::Relaxed);
    }

    /// True if more calls are in flight than the peer may have, and the connection itself has more than a
    /// client that checks the health. A load balancer may share its address with users who make the peer
    /// exceed its limit.
    #[must_use]
    pub fn has_too_many_calls_of_health(&self) -> bool {
        self.has_too_many_calls() && self.calls.load(Ordering::Relaxed) > CALLS_WITH_HEALTH_MAX
    }

    /// Begins a streaming call. If the peer has as many as it may have, it gets the place of another one if
    /// `may_displace` is set; otherwise returns `None`.
    #[must_use]
    pub fn try_begin_streaming_call(&self, may_displace: bool) -> Option<StreamingSlot> {
        let account = self.current();
        let max = account.limits.streaming_calls_max;
        account.streaming_calls.begin(&self.streaming_calls, max, may_displace)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What connections hold together.
#[derive(Debug)]
pub(super) struct Account {
    limits: PeerLimits,
    calls: AtomicUsize,
    streaming_calls: Arc<StreamingCalls>,
    unfinished_bytes: AtomicUsize,
    unfinished_bytes_total: Arc<AtomicUsize>,
}

impl Account {
    fn new(limits: PeerLimits, unfinished_bytes_total: Arc<AtomicUsize>) -> Self {
        Self {
            limits,
            calls: AtomicUsize::new(0),
            streaming_calls: Arc::default(),
            unfinished_bytes: AtomicUsize::new(0),
            unfinished_bytes_total,
        }
    }

    /// Adds bytes of unfinished requests. Returns true if the peer, and all peers, have at most as many as
    /// they may have.
    pub(super) fn add_unfinished(&self, bytes: usize) -> bool {
        let of_peer = self.unfinished_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let total = self.unfinished_bytes_total.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        of_peer <= self.limits.unfinished_bytes_max && total <= self.limits.unfinished_bytes_total_max
    }

    /// Takes back bytes that were added.
    pub(super) fn release_unfinished(&self, bytes: usize) {
        self.unfinished_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.unfinished_bytes_total.fetch_sub(bytes, Ordering::Relaxed);
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
        self.connection.calls.store(calls, Ordering::Relaxed);
    }
}

impl Drop for CountedCalls {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::held_bytes::HeldBytes, *};

    fn connection(accounts: &PeerAccounts) -> Arc<ConnectionAccount> {
        Arc::new(ConnectionAccount::new(accounts.clone()))
    }

    #[test]
    fn the_connections_of_a_peer_share_one_account() {
        let totals = UnfinishedTotals::default();
        let [peer, other] = [(); 2].map(|()| PeerAccounts::new(PeerLimits::of_tests(), &totals));
        let (one, two, other) = (connection(&peer), connection(&peer), connection(&other));

        let may_displace = false;
        let slot = one.try_begin_streaming_call(may_displace);
        assert!(slot.is_some() && two.try_begin_streaming_call(may_displace).is_none());
        assert!(other.try_begin_streaming_call(may_displace).is_some());
        drop(slot);
        assert!(two.try_begin_streaming_call(may_displace).is_some());

        let mut calls = CountedCalls::new(Arc::clone(&one));
        calls.set(4);
        assert!(two.has_too_many_calls() && !other.has_too_many_calls());
        calls.set(3);
        assert!(!two.has_too_many_calls());
    }

    #[test]
    fn strangers_take_nothing_from_the_callers_at_their_address() {
        let totals = UnfinishedTotals::default();
        let peer = PeerAccounts::new(PeerLimits::of_tests(), &totals);
        let (stranger, caller) = (connection(&peer), connection(&peer));
        let mut calls = CountedCalls::new(Arc::clone(&stranger));
        let mut held = HeldBytes::new(Arc::clone(&stranger));
        calls.set(4);
        let may_displace = false;
        let slot = stranger.try_begin_streaming_call(may_displace);
        assert!(held.set(100) && slot.is_some());

        let mut of_caller = HeldBytes::new(Arc::clone(&caller));
        assert!(caller.has_too_many_calls() && !of_caller.set(1), "not authenticated yet");
        caller.set_authenticated("bff");
        assert!(!caller.has_too_many_calls() && caller.try_begin_streaming_call(may_displace).is_some());
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
        one.set_authenticated("bff");
        calls.set(4);
        assert!(held.set(91));

        assert!(one.has_too_many_calls() && !stranger.has_too_many_calls());
        assert!(HeldBytes::new(Arc::clone(&stranger)).set(100));
        drop((calls, held));
        assert!(!one.has_too_many_calls() && totals.are_zero());
    }

    #[test]
    fn a_connection_with_few_calls_may_check_the_health_while_its_peer_has_too_many() {
        let peer = PeerAccounts::new(PeerLimits::of_tests(), &UnfinishedTotals::default());
        let (stranger, balancer) = (connection(&peer), connection(&peer));
        let (mut of_stranger, mut of_balancer) =
            (CountedCalls::new(Arc::clone(&stranger)), CountedCalls::new(Arc::clone(&balancer)));
        of_stranger.set(CALLS_WITH_HEALTH_MAX + 1);
        of_balancer.set(CALLS_WITH_HEALTH_MAX);

        assert!(balancer.has_too_many_calls() && !balancer.has_too_many_calls_of_health());
        assert!(stranger.has_too_many_calls_of_health());
    }
}
