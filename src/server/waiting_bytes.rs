//! The memory of requests that have arrived and wait for their answer, for each caller and for all together.
//!
//! A request whose body is complete is no longer an unfinished one (`held_bytes.rs`). But its handler keeps
//! it until the answer, and may wait, for example for a database that does not answer.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    caller_share::{CallerShare, WaitingTotal},
    peer_account::ConnectionAccount,
};

/// The bytes of a request up to which it is not counted: the call itself needs more, and the number of calls
/// is limited.
const UNCOUNTED_BYTES: usize = 4 * 1024;

/// The request of one call, shared by the call and its body. What it holds is released when both are dropped.
pub(super) struct WaitingRequest {
    account: Arc<ConnectionAccount>,
    held: Mutex<Option<WaitingBytes>>,
}

impl WaitingRequest {
    pub(super) const fn new(account: Arc<ConnectionAccount>) -> Self {
        Self { account, held: Mutex::new(None) }
    }

    /// Counts the bytes of the request that have arrived. Returns true if they are within the limits.
    pub(super) fn set(&self, bytes: usize) -> bool {
        if bytes <= UNCOUNTED_BYTES {
            return true;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get_or_insert_with(|| WaitingBytes::new(&self.account)).set(bytes)
    }
}

/// Waiting bytes of one request. Dropping it releases them.
struct WaitingBytes {
    total: Arc<WaitingTotal>,
    /// The share of the caller; `None` if no caller was authenticated on the connection.
    share: Option<Arc<CallerShare>>,
    bytes: usize,
}

impl WaitingBytes {
    fn new(account: &ConnectionAccount) -> Self {
        Self { total: Arc::clone(account.waiting_total()), share: account.share(), bytes: 0 }
    }

    /// Raises the number of bytes, within the limits or not. Returns true if it is within the limits.
    fn set(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let is_within_total = self.total.add(more);
        let is_within_share = self.share.as_ref().is_none_or(|share| share.add_waiting(more));
        is_within_total && is_within_share
    }
}

impl Drop for WaitingBytes {
    fn drop(&mut self) {
        self.total.release(self.bytes);
        if let Some(share) = &self.share {
            share.release_waiting(self.bytes);
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

    const MAX: usize = 1024 * 1024;

    fn connection(totals: &UnfinishedTotals, caller: Option<&str>) -> Arc<ConnectionAccount> {
        let connection = ConnectionAccount::new(PeerAccounts::new(PeerLimits::of_tests(), totals));
        if let Some(caller) = caller {
            connection.set_authenticated(caller);
        }
        Arc::new(connection)
    }

    #[test]
    fn a_caller_gets_a_quarter_and_all_together_the_total() {
        let totals = UnfinishedTotals::new(CallerShares::new(MAX, MAX, 100));
        let request = |caller: &str| WaitingRequest::new(connection(&totals, Some(caller)));
        let (first, second) = (request("one"), request("one"));
        assert!(first.set(MAX / 8) && first.set(MAX / 4));
        assert!(!second.set(UNCOUNTED_BYTES + 1), "one caller has one share, whatever its connections");
        assert!(second.set(UNCOUNTED_BYTES), "a short request is not counted");
        drop((first, second));

        let of_others = ["two", "three", "four", "five"].map(request);
        assert!(of_others.iter().all(|request| request.set(MAX / 4)));
        assert!(!request("one").set(UNCOUNTED_BYTES + 1), "the total is used up");
        drop(of_others);
        assert!(request("one").set(MAX / 4));
    }

    #[test]
    fn without_callers_only_the_total_is_limited() {
        let totals = UnfinishedTotals::new(CallerShares::new(MAX, MAX, 100));
        let request = WaitingRequest::new(connection(&totals, None));
        assert!(request.set(MAX) && !request.set(MAX + 1));
    }
}
