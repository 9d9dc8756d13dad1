//! The open connections of each peer. The connections of a peer share its accounts (`peer_account.rs`), so
//! that a peer gains nothing by opening more of them.
//!
//! [`ClientAddress::of`] defines which addresses are one peer.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    caller_share::CallerShares,
    peer_account::{ConnectionAccount, PeerAccounts, PeerLimits, UnfinishedTotals},
};
use crate::{clock::Clock, domain::ClientAddress};

/// A peer may open this part (1/64) of its limit beyond the limit. A load balancer can then check the health
/// although clients at its address have used up the limit. A further connection gets the place of the oldest
/// of these extra ones.
const EXTRA_PART: usize = 64;

/// The time for which an extra connection keeps its place: longer than a health check takes.
const EXTRA_TIME: Duration = Duration::from_secs(1);

/// The peers with open connections.
#[derive(Clone)]
pub(super) struct Peers {
    connected: Arc<Mutex<Connections>>,
    limits: PeerLimits,
    unfinished_totals: UnfinishedTotals,
}

/// The open connections of all peers.
#[derive(Default)]
struct Connections {
    by_peer: HashMap<ClientAddress, Connected>,
    /// The number that was given last; a refused connection has a number too.
    last_number: u64,
}

/// The open connections of one peer, by their numbers, the oldest one first.
struct Connected {
    connections: BTreeMap<u64, Open>,
    accounts: PeerAccounts,
}

struct Open {
    account: Arc<ConnectionAccount>,
    opened: Instant,
    /// Whether the connection is about to be closed, because another one gets its place.
    is_displaced: bool,
}

impl Open {
    /// True if another connection may get the place of this one. `of_strangers` excludes those of callers.
    fn may_be_displaced(&self, of_strangers: bool) -> bool {
        let may_be = if of_strangers { self.account.is_of_strangers() } else { !self.account.is_kept() };
        may_be && !self.is_displaced
    }

    fn displace(&mut self) {
        self.is_displaced = true;
        self.account.displace();
    }
}

impl Connected {
    /// Returns the number of connections whose place another connection may get.
    fn displaceable(&self, of_strangers: bool) -> usize {
        self.connections.values().filter(|open| open.may_be_displaced(of_strangers)).count()
    }
}

impl Peers {
    /// Creates an empty list. A caller may keep a part of `connections_total_max` connections.
    pub(super) fn new(limits: PeerLimits, connections_total_max: usize) -> Self {
        let shares = CallerShares::new(
            limits.unfinished_bytes_total_max,
            limits.waiting_bytes_total_max,
            connections_total_max,
        );
        let unfinished_totals = UnfinishedTotals::new(shares);
        Self { connected: Arc::default(), limits, unfinished_totals }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a slot; `None` if the peer has as many connections as it may have.
    pub(super) fn take(&self, address: IpAddr) -> Option<PeerSlot> {
        self.take_at(address, Clock::system().instant())
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> Option<PeerSlot> {
        let peer = ClientAddress::of(address);
        let mut connected = self.lock();
        connected.last_number += 1;
        let number = connected.last_number;
        let of_peer = connected.by_peer.entry(peer).or_insert_with(|| Connected {
            connections: BTreeMap::new(),
            accounts: PeerAccounts::new(self.limits, &self.unfinished_totals),
        });
        let open_count = of_peer.connections.len();
        if open_count >= self.limits.connections_max {
            let extra = self.limits.connections_max / EXTRA_PART;
            if open_count - self.limits.connections_max >= extra {
                // The oldest of the `extra` newest connections that may be displaced is closed.
                let of_strangers = true;
                let mut newest = of_peer.connections.values_mut().rev().take(extra);
                let may_be_displaced = |open: &&mut Open| {
                    open.may_be_displaced(of_strangers) && now.duration_since(open.opened) >= EXTRA_TIME
                };
                newest.rfind(may_be_displaced)?.displace();
            }
        }
        let account = Arc::new(ConnectionAccount::new(of_peer.accounts.clone()));
        let open = Open { account: Arc::clone(&account), opened: now, is_displaced: false };
        of_peer.connections.insert(number, open);
        drop(connected);
        Some(PeerSlot { peers: self.clone(), peer, number, account })
    }

    /// Closes a connection so that a new one of `address` gets its place: of the peer that has the most
    /// connections of strangers, the oldest of these. If no peer has more of them than the peer of the new
    /// one, does the same with the connections that no caller keeps. Returns false if none is closed.
    pub(super) fn displace_for(&self, address: IpAddr) -> bool {
        let peer = ClientAddress::of(address);
        let mut connected = self.lock();
        [true, false].into_iter().any(|of_strangers| {
            let own = connected.by_peer.get(&peer).map_or(0, |own| own.displaceable(of_strangers));
            let with_counts = connected.by_peer.values_mut().map(|of| (of.displaceable(of_strangers), of));
            let most = with_counts.max_by_key(|(count, _)| *count).filter(|(count, _)| *count > own);
            let oldest = most.and_then(|(_, of_peer)| {
                of_peer.connections.values_mut().find(|open| open.may_be_displaced(of_strangers))
            });
            oldest.map(Open::displace).is_some()
        })
    }
}

/// The right of a peer to one open connection. Dropping it releases the slot.
pub(super) struct PeerSlot {
    peers: Peers,
    peer: ClientAddress,
    number: u64,
    account: Arc<ConnectionAccount>,
}

impl PeerSlot {
    /// Returns the account of the connection.
    pub(super) const fn account(&self) -> &Arc<ConnectionAccount> {
        &self.account
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut connected = self.peers.lock();
        if let Entry::Occupied(mut of_peer) = connected.by_peer.entry(self.peer) {
            of_peer.get_mut().connections.remove(&self.number);
            if of_peer.get().connections.is_empty() {
                of_peer.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_gets_at_most_its_slots_and_leaves_no_entry() {
        let peers = Peers::new(PeerLimits::of_tests(), 100);
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
        assert!(peers.lock().by_peer.is_empty());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_the_slots_of_one_peer() {
        let peers = Peers::new(PeerLimits::of_tests(), 100);
        let held: Vec<_> = (0..100)
            .filter_map(|host| peers.take(address(&format!("2001:db8:1:2:{host:x}::{host:x}"))))
            .collect();
        assert_eq!(held.len(), 2);
        assert!(peers.take(address("2001:db8:1:3::1")).is_some(), "another network is another peer");
    }

    #[test]
    fn the_connections_of_a_peer_share_its_accounts() {
        let peers = Peers::new(PeerLimits::of_tests(), 100);
        let [one, two] = ["2001:db8::1", "2001:db8::2"].map(|text| peers.take(address(text)).unwrap());
        let other = peers.take(address("192.0.2.1")).unwrap();

        let may_displace = false;
        let slot = one.account().try_begin_streaming_call(may_displace);
        assert!(slot.is_some() && two.account().try_begin_streaming_call(may_displace).is_none());
        assert!(other.account().try_begin_streaming_call(may_displace).is_some());
    }

    /// True if another connection gets the place of this one.
    fn is_displaced(slot: &PeerSlot) -> bool {
        slot.peers.lock().by_peer[&slot.peer].connections[&slot.number].is_displaced
    }

    #[test]
    fn a_new_connection_gets_the_place_of_the_oldest_of_the_peer_with_the_most() {
        let peers = Peers::new(PeerLimits { connections_max: 10, ..PeerLimits::of_tests() }, 8);
        let [many, few, new] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        let of_many = [(); 3].map(|()| peers.take(many).unwrap());
        let of_few = peers.take(few).unwrap();

        assert!(!peers.displace_for(many), "a peer takes nothing from peers with fewer connections");
        assert!(peers.displace_for(few) && peers.displace_for(new));
        assert_eq!(of_many.each_ref().map(is_displaced), [true, true, false]);
        assert!(peers.displace_for(new) && peers.displace_for(new) && !peers.displace_for(new));
        assert!(is_displaced(&of_many[2]) && is_displaced(&of_few));
    }

    #[test]
    fn strangers_give_up_their_places_before_callers_and_each_caller_keeps_its_share() {
        let peers = Peers::new(PeerLimits { connections_max: 10, ..PeerLimits::of_tests() }, 8);
        let [of_caller, of_stranger, new] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        let slots = [(); 4].map(|()| peers.take(of_caller).unwrap());
        for slot in &slots {
            slot.account().set_authenticated("bff");
        }
        let stranger = peers.take(of_stranger).unwrap();

        assert!(peers.displace_for(new) && is_displaced(&stranger));
        // A quarter of 8.
        assert!(peers.displace_for(new) && peers.displace_for(new) && !peers.displace_for(new));
        assert_eq!(slots.each_ref().map(is_displaced), [false, false, true, true]);
    }

    #[test]
    fn a_peer_at_its_limit_may_still_open_connections_that_last_a_short_time() {
        let peers = Peers::new(PeerLimits { connections_max: 128, ..PeerLimits::of_tests() }, 1_000);
        let balancer = address("192.0.2.1");
        let now = Clock::system().instant();
        let take = |millis| peers.take_at(balancer, now + Duration::from_millis(millis));
        let held: Vec<_> = (0..128).map(|_| take(0).unwrap()).collect();

        let mut extra = vec![take(1_000).unwrap(), take(1_001).unwrap()];
        assert!(take(1_002).is_none(), "a flood gets no more");
        extra.extend([take(2_000).unwrap(), take(2_001).unwrap()]);

        assert!(!held.iter().any(is_displaced));
        assert_eq!(extra.iter().map(is_displaced).collect::<Vec<_>>(), [true, true, false, false]);
    }
}
