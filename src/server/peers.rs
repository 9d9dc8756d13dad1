//! The open connections of each peer. The connections of a peer share its accounts (`peer_account.rs`), so
//! that a peer gains nothing by opening more of them.
//!
//! [`ClientAddress::of`] defines which addresses are one peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::peer_account::{ConnectionAccount, PeerAccounts, PeerLimits, UnfinishedTotals};
use crate::domain::ClientAddress;

/// The peers with open connections.
#[derive(Clone)]
pub(super) struct Peers {
    connected: Arc<Mutex<HashMap<ClientAddress, Connected>>>,
    limits: PeerLimits,
    unfinished_totals: UnfinishedTotals,
}

struct Connected {
    connections: usize,
    accounts: PeerAccounts,
}

impl Peers {
    pub(super) fn new(limits: PeerLimits) -> Self {
        Self { connected: Arc::default(), limits, unfinished_totals: UnfinishedTotals::default() }
    }

    /// Reserves a slot; `None` if the peer has as many connections as it may have.
    pub(super) fn take(&self, address: IpAddr) -> Option<PeerSlot> {
        let peer = ClientAddress::of(address);
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = connected.entry(peer).or_insert_with(|| Connected {
            connections: 0,
            accounts: PeerAccounts::new(self.limits, &self.unfinished_totals),
        });
        if of_peer.connections >= self.limits.connections_max {
            return None;
        }
        of_peer.connections += 1;
        let account = Arc::new(ConnectionAccount::new(of_peer.accounts.clone()));
        Some(PeerSlot { peers: self.clone(), peer, account })
    }
}

/// The right of a peer to one open connection. Dropping it releases the slot.
pub(super) struct PeerSlot {
    peers: Peers,
    peer: ClientAddress,
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
        let mut connected = self.peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_peer) = connected.entry(self.peer) {
            of_peer.get_mut().connections -= 1;
            if of_peer.get().connections == 0 {
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
        let peers = Peers::new(PeerLimits::of_tests());
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
        let peers = Peers::new(PeerLimits::of_tests());
        let held: Vec<_> = (0..100)
            .filter_map(|host| peers.take(address(&format!("2001:db8:1:2:{host:x}::{host:x}"))))
            .collect();
        assert_eq!(held.len(), 2);
        assert!(peers.take(address("2001:db8:1:3::1")).is_some(), "another network is another peer");
    }

    #[test]
    fn the_connections_of_a_peer_share_its_accounts() {
        let peers = Peers::new(PeerLimits::of_tests());
        let [one, two] = ["2001:db8::1", "2001:db8::2"].map(|text| peers.take(address(text)).unwrap());
        let other = peers.take(address("192.0.2.1")).unwrap();

        let slot = one.account().try_begin_streaming_call();
        assert!(slot.is_some() && two.account().try_begin_streaming_call().is_none());
        assert!(other.account().try_begin_streaming_call().is_some());
    }
}
