//! The audit trail: each decision is a line in the log (target `audit`) and a row in the database.
//!
//! What is done is written in the transaction that does it. A refusal has no transaction of its own to be written in, and whoever
//! floods the service with what is refused must not make it write: refusals wait for a moment, those that are alike become one
//! event with their number, and only so many different ones are kept apart.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::AccountError;
use crate::{
    clock::Clock,
    domain::{AuditEvent, AuditKind, ClientAgent, Email, Origin},
    store::Store,
};

/// How long refusals wait: what a crash may lose of them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes decisions down. Clones share what waits.
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
    /// Whose account it is about, where nobody has looked whether there is one.
    account: Option<Email>,
}

impl AuditTrail {
    /// A trail in this store. Of refusals that come within a second, `distinct_max` different ones are kept apart.
    #[must_use]
    pub fn new(store: Store, clock: Clock, distinct_max: usize) -> Self {
        Self { store, clock, distinct_max, waiting: Arc::default() }
    }

    /// An event of this moment.
    #[must_use]
    pub fn event(&self, kind: AuditKind, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone())
    }

    /// Notes a refusal.
    pub fn note(&self, event: AuditEvent) {
        self.wait(Refusal { event, account: None });
    }

    /// The same about the account with this email, if there is one: that is looked up later, so that the time of the answer
    /// does not tell.
    pub(super) fn note_about(&self, event: AuditEvent, account: &Email) {
        self.wait(Refusal { event, account: Some(account.clone()) });
    }

    /// Writes something that was done outside of a transaction, at once.
    pub async fn record(&self, event: AuditEvent) {
        log(&event);
        self.write(vec![event]).await;
    }

    /// The error of a verb, after it was noted if it is a decision and not a breakage; `account` as in [`AuditTrail::note_about`].
    pub(super) fn refused(
        &self,
        event: AuditEvent,
        account: Option<&Email>,
        error: AccountError,
    ) -> AccountError {
        if let Some(reason) = error.reason() {
            self.wait(Refusal { event: event.refused(reason), account: account.cloned() });
        }
        error
    }

    fn wait(&self, refusal: Refusal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if is_counted(&mut waiting, &refusal) {
            return;
        }
        let refusal = if waiting.len() < self.distinct_max { refusal } else { refusal.among_others() };
        if !is_counted(&mut waiting, &refusal) {
            waiting.push(refusal);
        }
    }

    /// Writes what waits, from time to time, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.flush().await;
        }
    }

    /// Writes what waits now.
    pub async fn flush(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let events = self.with_users(waiting).await;
        if events.is_empty() {
            return;
        }
        events.iter().for_each(log);
        self.write(events).await;
    }

    async fn write(&self, events: Vec<AuditEvent>) {
        let count = events.len();
        if let Err(error) = self.store.record_audit_events(events).await {
            let error = error.chain();
            tracing::error!(
                error,
                "{count} audit events are in the log only: they could not be written to the database"
            );
        }
    }

    /// Looks up whom they are about; those that are alike now are one event.
    async fn with_users(&self, refusals: Vec<Refusal>) -> Vec<AuditEvent> {
        let mut known = Vec::with_capacity(refusals.len());
        let mut is_away = false;
        for Refusal { mut event, account } in refusals {
            if let Some(email) = account.filter(|_| !is_away) {
                match self.store.find_user_by_email(&email).await {
                    Ok(user) => event = event.about(user.map(|user| user.auth_token)),
                    // Writing them will fail too, and say why; each would wait as long as the first.
                    Err(_) => is_away = true,
                }
            }
            let refusal = Refusal { event, account: None };
            if !is_counted(&mut known, &refusal) {
                known.push(refusal);
            }
        }
        known.into_iter().map(|refusal| refusal.event).collect()
    }
}

/// Adds a refusal to one that is like it, if there is one.
fn is_counted(known: &mut [Refusal], refusal: &Refusal) -> bool {
    let like = known.iter_mut().find(|other| other.is_like(refusal));
    like.map(|other| other.event.count = other.event.count.saturating_add(refusal.event.count)).is_some()
}

impl Refusal {
    fn is_like(&self, other: &Self) -> bool {
        self.account == other.account && self.event.is_like(&other.event)
    }

    /// Without what distinguishes it from others of its kind, reason and caller.
    fn among_others(self) -> Self {
        let AuditEvent { at, kind, reason, origin, count, .. } = self.event;
        let origin = Origin { request_id: origin.request_id, ..Origin::local(&origin.caller) };
        Self {
            event: AuditEvent { at, kind, reason, user: None, resource: None, origin, count },
            account: None,
        }
    }
}

/// The line of an event.
pub(super) fn log(event: &AuditEvent) {
    let AuditEvent { at, kind, reason, user, resource, origin, count } = event;
    tracing::info!(
        target: "audit",
        event = %kind,
        reason,
        user = user.map(tracing::field::display),
        resource,
        caller = %origin.caller,
        peer = origin.peer.map(tracing::field::display),
        client = origin.client.map(tracing::field::display),
        agent = origin.agent.as_ref().map(ClientAgent::as_str),
        request_id = origin.request_id.map(tracing::field::display),
        count,
        at = %at,
        "{kind}"
    );
}
