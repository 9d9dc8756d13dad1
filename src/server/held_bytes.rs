//! The memory of unfinished requests, counted for the peer, for the caller, and for all together.

use std::sync::Arc;

use super::{
    caller_share::CallerShare,
    peer_account::{Account, ConnectionAccount},
};

/// The memory that each connection has for one unfinished call of health, whatever its peer holds: the call,
/// its message and 24 headers. A load balancer may share its address with users who use up what the peer may
/// hold, and one call more costs less than its connection.
const HEALTH_CALL_BYTES: usize = 40 * 1024;

/// Bytes of unfinished requests that are kept in memory. Dropping it releases them.
pub(super) struct HeldBytes {
    connection: Arc<ConnectionAccount>,
    /// Whether the bytes are those of a call of health, which stay in the account of the strangers.
    is_of_health: bool,
    /// Whether the bytes use the memory that the connection has for one call of health. Up to
    /// [`HEALTH_CALL_BYTES`], they are counted nowhere.
    uses_health_memory: bool,
    /// The account in which `held` is counted.
    account: Arc<Account>,
    /// The share of a caller in which `held` is counted too.
    share: Option<Arc<CallerShare>>,
    held: usize,
}

impl HeldBytes {
    /// Counts bytes in the account of the connection, and in the share of its caller.
    pub(super) fn new(connection: Arc<ConnectionAccount>) -> Self {
        let is_of_health = false;
        Self::of_request(connection, is_of_health)
    }

    /// Counts the bytes of a request in the account of the connection and the share of its caller. A call of
    /// health needs no caller, so its bytes are counted in the account of the strangers only.
    pub(super) fn of_request(connection: Arc<ConnectionAccount>, is_of_health: bool) -> Self {
        let account = Arc::clone(connection.account(is_of_health));
        let share = if is_of_health { None } else { connection.share() };
        let uses_health_memory = is_of_health && connection.try_begin_health_call();
        Self { connection, is_of_health, uses_health_memory, account, share, held: 0 }
    }

    /// Sets the number of bytes. They are counted even if they exceed a limit, until the value is dropped.
    /// Returns false if the number has grown and exceeds a limit.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if self.uses_health_memory && bytes <= HEALTH_CALL_BYTES {
            return true;
        }
        if bytes <= self.held {
            self.release(self.held - bytes);
            return true;
        }
        let current = self.connection.account(self.is_of_health);
        if !Arc::ptr_eq(current, &self.account) {
            // A caller was authenticated on the connection since: its bytes move from the account of the
            // strangers to that of the callers.
            let current = Arc::clone(current);
            self.release(self.held);
            self.account = current;
            self.share = self.connection.share();
        }
        let more = bytes - self.held;
        self.held = bytes;
        let is_within_account = self.account.add_unfinished(more);
        let is_within_share = self.share.as_ref().is_none_or(|share| share.add_unfinished(more));
        is_within_account && is_within_share
    }

    fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.account.release_unfinished(bytes);
            if let Some(share) = &self.share {
                share.release_unfinished(bytes);
            }
            self.held -= bytes;
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.release(self.held);
        if self.uses_health_memory {
            self.connection.end_health_call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            caller_share::CallerShares,
            peer_account::{PeerAccounts, PeerLimits, UnfinishedTotals},
        },
        *,
    };

    fn connection(accounts: &PeerAccounts) -> Arc<ConnectionAccount> {
        Arc::new(ConnectionAccount::new(accounts.clone()))
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
    fn a_caller_has_one_share_whatever_the_number_of_its_addresses() {
        // A caller may hold half of such a low total.
        let limits = PeerLimits { unfinished_bytes_total_max: 400, ..PeerLimits::of_tests() };
        let totals = UnfinishedTotals::new(CallerShares::new(400, 0, 100));
        let of = |caller: &str| {
            let connection = connection(&PeerAccounts::new(limits, &totals));
            connection.set_authenticated(caller);
            HeldBytes::new(connection)
        };
        let (mut held, mut more, mut other) = ([(); 2].map(|()| of("one")), of("one"), of("other"));

        assert_eq!(held.each_mut().map(|held| held.set(100)), [true, true]);
        assert!(!more.set(1), "a caller has one share");
        assert!(other.set(100), "another caller has a share of its own");
        drop((held, more, other));
        assert!(totals.are_zero());
    }

    #[test]
    fn each_connection_has_memory_for_one_call_of_health() {
        let totals = UnfinishedTotals::default();
        let peer = PeerAccounts::new(PeerLimits::of_tests(), &totals);
        let (stranger, balancer) = (connection(&peer), connection(&peer));
        let is_of_health = true;
        let health =
            |connection: &Arc<ConnectionAccount>| HeldBytes::of_request(Arc::clone(connection), is_of_health);
        let mut held = [(); 3].map(|()| health(&stranger));
        assert_eq!(held.each_mut().map(|held| held.set(1_000)), [true, false, false]);

        let mut check = health(&balancer);
        assert!(check.set(HEALTH_CALL_BYTES) && !check.set(HEALTH_CALL_BYTES + 1));
        assert!(!health(&balancer).set(1_000), "a second call has no memory of its own");
        drop(check);
        assert!(health(&balancer).set(1_000));
        drop(held);
        assert!(totals.are_zero());
    }
}
