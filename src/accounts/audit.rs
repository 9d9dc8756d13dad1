//! The audit trail: each decision is a line in the log (target `audit`) and a row in the database.
//!
//! A change is recorded in the transaction that makes it, and logged by the store after the commit. A refusal
//! has no such transaction, and a flood of refused calls must not cause a flood of writes. So refusals wait
//! for a moment before they are written: equal refusals become one event with a count, and the number of
//! different refusals is limited.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::AccountError;
use crate::{
    clock::Clock,
    domain::{AuditEvent, AuditKind, Email, Origin},
    store::{Store, log_audit_event},
};

/// Time that refusals wait before they are written. A crash loses at most the refusals of this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Records decisions. Clones share the waiting refusals.
#[derive(Clone)]
pub struct AuditTrail {
    store: Store,
    clock: Clock,
    distinct_max: usize,
    waiting: Arc<Mutex<Vec<Refusal>>>,
}

/// A refusal that waits to be written.
#[derive(Debug)]
struct Refusal {
    event: AuditEvent,
    /// Email of the account that the refusal is about, if that account has not been looked up yet.
    account: Option<Email>,
}

impl AuditTrail {
    /// Creates a trail in this store. Of the refusals within one second, at most `distinct_max` different
    /// ones are recorded separately; the others are merged by kind, reason and caller.
    #[must_use]
    pub fn new(store: Store, clock: Clock, distinct_max: usize) -> Self {
        Self { store, clock, distinct_max, waiting: Arc::default() }
    }

    /// Creates an event with the current time.
    #[must_use]
    pub fn event(&self, kind: AuditKind, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone())
    }

    /// Queues a refusal to be written.
    pub fn queue_refusal(&self, event: AuditEvent) {
        self.enqueue(Refusal { event, account: None });
    }

    /// Queues a refusal about the account with this email, if there is one. The account is looked up when the
    /// refusal is written, so that the response time does not show whether it exists.
    pub(super) fn queue_refusal_about(&self, event: AuditEvent, account: &Email) {
        self.enqueue(Refusal { event, account: Some(account.clone()) });
    }

    /// Records at once a change that was made outside of a transaction.
    pub async fn record(&self, event: AuditEvent) {
        log_audit_event(&event);
        self.write(vec![event]).await;
    }

    /// Returns `error`, after queueing a refusal if the error is a decision and not a failure
    /// ([`AccountError::reason`]). For `account` see [`AuditTrail::queue_refusal_about`].
    pub(super) fn refused(
        &self,
        event: AuditEvent,
        account: Option<&Email>,
        error: AccountError,
    ) -> AccountError {
        if let Some(reason) = error.reason() {
            self.enqueue(Refusal { event: event.with_reason(reason), account: account.cloned() });
        }
        error
    }

    fn enqueue(&self, refusal: Refusal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if merge_into(&mut waiting, &refusal) {
            return;
        }
        let refusal = if waiting.len() < self.distinct_max { refusal } else { refusal.without_details() };
        if !merge_into(&mut waiting, &refusal) {
            waiting.push(refusal);
        }
    }

    /// Writes the waiting refusals once a second until `stop` is cancelled. [`AuditTrail::flush`] writes the
    /// last ones.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.flush().await;
        }
    }

    /// Writes the waiting refusals now.
    pub async fn flush(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let events = self.resolve_users(waiting).await;
        if events.is_empty() {
            return;
        }
        events.iter().for_each(log_audit_event);
        self.write(events).await;
    }

    async fn write(&self, events: Vec<AuditEvent>) {
        let count = events.len();
        if let Err(error) = self.store.record_audit_events(events).await {
            let error = error.chain();
            tracing::error!(
                error,
                "{count} audit events could not be written to the database; they are in the log only"
            );
        }
    }

    /// Looks up the users that the refusals are about, and merges the refusals that are equal after that.
    async fn resolve_users(&self, refusals: Vec<Refusal>) -> Vec<AuditEvent> {
        let mut known = Vec::with_capacity(refusals.len());
        let mut is_store_down = false;
        for Refusal { mut event, account } in refusals {
            if let Some(email) = account.filter(|_| !is_store_down) {
                match self.store.find_user_by_email(&email).await {
                    Ok(user) => event = event.with_user(user.map(|user| user.auth_token)),
                    // No further look-ups: each would wait as long as this one. The write that follows fails
                    // too and logs the cause.
                    Err(_) => is_store_down = true,
                }
            }
            let refusal = Refusal { event, account: None };
            if !merge_into(&mut known, &refusal) {
                known.push(refusal);
            }
        }
        known.into_iter().map(|refusal| refusal.event).collect()
    }
}

/// Adds the count of a refusal to an equal one in `known`. True if there is one.
fn merge_into(known: &mut [Refusal], refusal: &Refusal) -> bool {
    let similar = known.iter_mut().find(|other| other.is_similar_to(refusal));
    similar.map(|other| other.event.count = other.event.count.saturating_add(refusal.event.count)).is_some()
}

impl Refusal {
    fn is_similar_to(&self, other: &Self) -> bool {
        self.account == other.account && self.event.is_similar_to(&other.event)
    }

    /// Reduces a refusal to its kind, reason and caller, so that it merges with all others that have the
    /// same.
    fn without_details(self) -> Self {
        let AuditEvent { at, kind, reason, origin, count, .. } = self.event;
        let origin = Origin { request_id: origin.request_id, ..Origin::local(&origin.caller) };
        Self {
            event: AuditEvent { at, kind, reason, user: None, resource: None, origin, count },
            account: None,
        }
    }
}
