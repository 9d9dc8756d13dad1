//! The events that wait to be written, and the rows to which further equal events are added.
//!
//! Equal events of a minute become one row with a count. The number of different ones is limited, with a
//! budget for strangers, one for each caller and one for each account: noise in one budget leaves the others
//! alone. An event beyond its budget loses its addresses and its resource, but an event about an account
//! never loses the account.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use super::AuditLimits;
use crate::domain::{AuditEvent, AuditKind, AuthToken, ClientAddress, ClientAgent, Email, Origin, Timestamp};

/// Time in which equal events become one row.
const WINDOW: Duration = Duration::from_mins(1);

/// Maximum number of accounts with waiting refusals, and of accounts with waiting reads: some megabytes.
/// All events are written when half as many wait, so this is reached only if the database is slower than
/// the calls.
const ACCOUNTS_WAITING_MAX: usize = 10_000;

/// Number of rows of one window at which they are forgotten: some tens of megabytes. Equal events then begin
/// another row; none is merged or lost.
const ROWS_REMEMBERED_MAX: usize = 50_000;

/// An event that waits.
#[derive(Debug, Clone)]
pub(super) struct QueuedEvent {
    pub(super) event: AuditEvent,
    /// Email of the account that the event is about, if that account has not been looked up yet.
    pub(super) account: Option<Email>,
}

/// What equal events have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    kind: AuditKind,
    reason: Option<&'static str>,
    caller: Arc<str>,
    user: Option<AuthToken>,
    account: Option<Email>,
    resource: Option<String>,
    /// The network of the connection.
    peer: Option<ClientAddress>,
    client: Option<ClientAddress>,
    agent: Option<ClientAgent>,
}

/// What shares a limit on different events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Budget {
    /// Refusals of all callers with this name that did not authenticate.
    Strangers(Arc<str>),
    /// Events of this caller that are about no account.
    Caller(Arc<str>),
    /// Refusals about this account.
    Refusals(Option<AuthToken>, Option<Email>),
    /// Reads of this account. Apart from refusals, so that many reads hide no guess.
    Reads(Option<AuthToken>),
}

impl QueuedEvent {
    /// True if the event is about no account and its caller did not authenticate.
    fn is_of_stranger(&self) -> bool {
        self.event.user.is_none() && self.account.is_none() && self.event.origin.is_stranger()
    }

    /// Returns the key. A stranger's program and method are not part of it: each of them is free to choose,
    /// and would multiply the rows.
    fn key(&self) -> EventKey {
        let AuditEvent { kind, reason, user, origin, resource, .. } = &self.event;
        let is_told = !self.is_of_stranger();
        EventKey {
            kind: *kind,
            reason: *reason,
            caller: Arc::clone(&origin.caller),
            user: *user,
            account: self.account.clone(),
            resource: resource.clone().filter(|_| is_told),
            peer: origin.peer.map(ClientAddress::of),
            client: origin.client,
            agent: origin.agent.clone().filter(|_| is_told),
        }
    }

    fn budget(&self) -> Budget {
        let (user, caller) = (self.event.user, &self.event.origin.caller);
        match (user.is_some() || self.account.is_some(), self.event.reason) {
            (true, Some(_)) => Budget::Refusals(user, self.account.clone()),
            (true, None) => Budget::Reads(user),
            (false, _) if self.event.origin.is_stranger() => Budget::Strangers(Arc::clone(caller)),
            (false, _) => Budget::Caller(Arc::clone(caller)),
        }
    }

    /// Reduces an event to its kind, reason, caller and account.
    fn without_details(self) -> Self {
        let AuditEvent { at, kind, reason, user, origin, count, .. } = self.event;
        let origin = Origin { request_id: origin.request_id, ..Origin::local(&origin.caller) };
        Self { event: AuditEvent { at, kind, reason, user, resource: None, origin, count }, ..self }
    }

    fn without_account(self) -> Self {
        Self { event: self.event.with_user(None), account: None }
    }
}

/// Limits the number of different events of each budget.
#[derive(Debug)]
struct Limiter {
    limits: AuditLimits,
    accounts_max: usize,
    used: HashMap<Budget, usize>,
    /// Number of budgets for refusals about an account.
    refused_accounts: usize,
    /// Number of budgets for reads of an account.
    read_accounts: usize,
}

impl Limiter {
    fn new(limits: AuditLimits, accounts_max: usize) -> Self {
        Self { limits, accounts_max, used: HashMap::new(), refused_accounts: 0, read_accounts: 0 }
    }

    /// Returns the event as it is to be recorded, with its key: without its details if its budget is used up.
    /// An event whose key is known takes nothing from the budget.
    fn admit(
        &mut self,
        queued: QueuedEvent,
        is_known: impl Fn(&EventKey) -> bool,
    ) -> (EventKey, QueuedEvent) {
        let key = queued.key();
        if is_known(&key) || self.take(&queued) {
            return (key, queued);
        }
        let has_account = self.used.contains_key(&queued.budget());
        let reduced = queued.without_details();
        let reduced = if has_account { reduced } else { reduced.without_account() };
        (reduced.key(), reduced)
    }

    /// Takes one event from its budget. False if the budget is used up, or there are too many accounts.
    fn take(&mut self, queued: &QueuedEvent) -> bool {
        let budget = queued.budget();
        let max = match budget {
            Budget::Strangers(_) => self.limits.strangers_max,
            Budget::Caller(_) => self.limits.per_caller_max,
            Budget::Refusals(..) | Budget::Reads(_) => self.limits.per_account_max,
        };
        let accounts = match budget {
            Budget::Refusals(..) => Some(&mut self.refused_accounts),
            Budget::Reads(_) => Some(&mut self.read_accounts),
            Budget::Strangers(_) | Budget::Caller(_) => None,
        };
        match self.used.entry(budget) {
            Entry::Occupied(mut used) => {
                let has_left = *used.get() < max;
                *used.get_mut() += usize::from(has_left);
                has_left
            }
            Entry::Vacant(used) => {
                if let Some(accounts) = accounts {
                    if *accounts >= self.accounts_max {
                        return false;
                    }
                    *accounts += 1;
                }
                used.insert(1);
                true
            }
        }
    }
}

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
    until: Timestamp,
    limiter: Limiter,
    /// The row of each key; `None` if it could not be written.
    rows: HashMap<EventKey, Option<i64>>,
}

impl Window {
    pub(super) fn new(limits: AuditLimits) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AuditLimits = AuditLimits { strangers_max: 3, per_caller_max: 2, per_account_max: 2 };
    const NOW: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

    fn refusal(caller: &str, client: &str) -> QueuedEvent {
        let origin = Origin {
            peer: Some("192.0.2.1".parse().unwrap()),
            client: ClientAddress::parse(client).ok(),
            ..Origin::local(caller)
        };
        let event =
            AuditEvent::new(NOW, AuditKind::AuthnLoginFail, origin).with_reason("INVALID_CREDENTIALS");
        QueuedEvent { event, account: None }
    }

    fn about(user: u8, client: &str) -> QueuedEvent {
        let queued = refusal("bff", client);
        QueuedEvent { event: queued.event.with_user(Some(AuthToken::from_random([user; 16]))), ..queued }
    }

    fn from_peer(caller: &str, peer: &str, resource: &str) -> QueuedEvent {
        let origin = Origin { peer: Some(peer.parse().unwrap()), ..Origin::local(caller) };
        let event = AuditEvent::new(NOW, AuditKind::AuthzFail, origin).with_reason("CALLER_UNKNOWN");
        QueuedEvent { event: event.with_resource(resource), account: None }
    }

    fn arrange(window: &mut Window, queued: Vec<QueuedEvent>, now: Timestamp) -> Vec<AuditEvent> {
        window.arrange(queued, now).into_iter().map(|pending| pending.event).collect()
    }

    #[test]
    fn refusals_of_strangers_are_counted_by_network_whatever_they_call() {
        let mut window = Window::new(LIMITS);
        let calls = (0..33).map(|number| from_peer("nobody", "192.0.2.1", &format!("method {number}")));
        let events = arrange(&mut window, calls.collect(), NOW);
        assert_eq!((events.len(), events[0].count), (1, 33));

        let same_network = ["2001:db8:1:2::1", "2001:db8:1:2::ffff", "2001:db8:1:3::1"];
        let calls = same_network.map(|peer| from_peer("nobody", peer, "method")).to_vec();
        let counts: Vec<_> = arrange(&mut window, calls, NOW).iter().map(|event| event.count).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn equal_events_of_a_minute_share_a_row() {
        let mut window = Window::new(LIMITS);
        let written = window.arrange(vec![refusal("bff", "192.0.2.7")], NOW);
        assert_eq!(written[0].row, None);
        window.remember(&written, &[5]);
        for (second, row) in [(1, Some(5)), (59, Some(5)), (60, None)] {
            let now = NOW.plus(Duration::from_secs(second));
            assert_eq!(window.arrange(vec![refusal("bff", "192.0.2.7")], now)[0].row, row, "{second}");
        }
        // The clock was set back by an hour.
        assert_eq!(window.arrange(vec![refusal("bff", "192.0.2.7")], NOW.minus(WINDOW * 60))[0].row, None);
    }

    #[test]
    fn each_budget_is_its_own() {
        let mut window = Window::new(LIMITS);
        let strangers = (0..100).map(|number| from_peer("nobody", &format!("198.51.100.{number}"), ""));
        let agents = (0..100).map(|number| refusal("agent", &format!("198.51.100.{number}")));
        let noise = strangers.chain(agents).collect();
        let events = arrange(&mut window, noise, NOW);
        let counts: Vec<_> = events.iter().map(|event| (event.origin.caller.as_ref(), event.count)).collect();
        let expected =
            [[("nobody", 1); 3].as_slice(), &[("nobody", 97)], &[("agent", 1); 2], &[("agent", 98)]];
        assert_eq!(counts, expected.concat());

        let guesses = vec![refusal("bff", "192.0.2.7"), about(1, "192.0.2.7"), about(2, "192.0.2.7")];
        let events = arrange(&mut window, guesses, NOW);
        assert!(events.iter().all(|event| event.count == 1 && event.origin.client.is_some()), "{events:?}");
        assert_eq!(events.len(), 3);
    }

    #[test]
    fn events_about_accounts_are_never_merged_over_accounts() {
        let mut window = Window::new(LIMITS);
        let guesses =
            (0..10).flat_map(|client| (0..50).map(move |user| about(user, &format!("192.0.2.{client}"))));
        let events = arrange(&mut window, guesses.collect(), NOW);
        for user in 0..50 {
            let user = AuthToken::from_random([user; 16]);
            let of_user: Vec<_> = events.iter().filter(|event| event.user == Some(user)).collect();
            assert_eq!(of_user.iter().map(|event| event.count).collect::<Vec<_>>(), [1, 1, 8]);
        }
        assert!(events.iter().all(|event| event.user.is_some()));
    }

    #[test]
    fn waiting_events_are_bounded_and_reads_hide_no_refusal() {
        let mut waiting = Waiting::new(LIMITS);
        let account = |number: u32| AuthToken::from_uuid(uuid::Uuid::from_u128(u128::from(number)));
        let mut is_urgent = false;
        for number in 0..30_000 {
            let read = AuditEvent::new(NOW, AuditKind::SensitiveRead, Origin::local("bff"));
            is_urgent =
                waiting.add(QueuedEvent { event: read.with_user(Some(account(number))), account: None });
        }
        assert!(is_urgent);
        waiting.add(about(7, "192.0.2.7"));
        let events = waiting.take();
        assert_eq!(events.len(), ACCOUNTS_WAITING_MAX + 2);
        assert!(events.iter().any(|queued| queued.event.user == Some(AuthToken::from_random([7; 16]))));
        assert_eq!(events.iter().map(|queued| queued.event.count).sum::<u32>(), 30_001);
        assert!(waiting.take().is_empty());
    }
}
