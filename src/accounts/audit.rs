//! The audit trail: each decision is a line in the log (target `audit`) and a row in the database.
//!
//! A change is recorded in the transaction that makes it, and logged by the store after the commit. A refusal
//! or a read has no such transaction, and a flood of calls must not cause a flood of writes. So these events
//! wait for a moment before they are written, and equal ones become one row with a count (`audit_queue`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    AccountError, AuditLimits,
    audit_queue::{QueuedEvent, Waiting, Window},
};
use crate::{
    clock::Clock,
    database::log_audit_event,
    domain::{AuditEvent, AuditKind, AuthToken, Email, Origin},
    store::Store,
};

/// Time that events wait before they are written; longer if the previous write is not finished. A crash loses
/// the events that wait.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of events that one transaction writes. SQLite's writer is thus busy for only a few
/// milliseconds.
const BATCH: usize = 500;

/// Records decisions. Clones share the waiting events.
#[derive(Clone)]
pub struct AuditTrail {
    store: Store,
    clock: Clock,
    queue: Arc<Queue>,
}

/// What happens to an event about an account that cannot be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfUnknown {
    /// It waits for the next write. Beyond their limit, waiting events are merged.
    Wait,
    WriteWithoutUser,
}

struct Queue {
    waiting: Mutex<Waiting>,
    /// The rows of the current minute. Locked while events are written, so that one write runs at a time.
    window: tokio::sync::Mutex<Window>,
    /// Notified when so many events wait that they should be written without delay.
    write_now: Notify,
}

impl AuditTrail {
    /// Creates a trail in this store. Beyond the limits, different events are merged.
    #[must_use]
    pub fn new(store: Store, clock: Clock, limits: AuditLimits) -> Self {
        let queue = Queue {
            waiting: Mutex::new(Waiting::new(limits)),
            window: tokio::sync::Mutex::new(Window::new(limits)),
            write_now: Notify::new(),
        };
        Self { store, clock, queue: Arc::new(queue) }
    }

    /// Creates an event with the current time.
    #[must_use]
    pub fn event(&self, kind: AuditKind, origin: &Origin) -> AuditEvent {
        AuditEvent::new(self.clock.now(), kind, origin.clone())
    }

    /// Queues an event to be written.
    pub fn queue_event(&self, event: AuditEvent) {
        self.enqueue(QueuedEvent { event, account: None });
    }

    /// Queues the event of a call to be written, unless an event of the call was recorded before. An event
    /// without a user is about the user of the call, if that is known.
    pub fn queue_call(&self, event: AuditEvent) {
        let note = &event.origin.note;
        if note.try_set_recorded() {
            let user = event.user.or_else(|| note.user());
            self.queue_event(event.with_user(user));
        }
    }

    /// Queues a refusal about the account with this email, if there is one. The account is looked up when the
    /// refusal is written, so that the response time does not show whether it exists.
    pub(super) fn queue_refusal_about(&self, event: AuditEvent, account: &Email) {
        self.enqueue(QueuedEvent { event, account: Some(account.clone()) });
    }

    /// Records at once a change that was made outside of a transaction.
    pub async fn record(&self, event: AuditEvent) {
        log_audit_event(&event);
        if let Err(error) = self.store.record_audit_events(vec![event]).await {
            log_unwritten(1, &error.chain());
        }
    }

    /// Queues `event` with the reason of the error. An error that is a failure and not a decision has none
    /// ([`AccountError::reason`]): nothing is queued. Returns the error.
    pub(super) fn queue_error(&self, event: AuditEvent, error: AccountError) -> AccountError {
        if let Some(reason) = error.reason() {
            self.queue_event(event.with_reason(reason));
        }
        error
    }

    /// Queues `event` as [`AuditTrail::queue_error`] does, about the account with this email, if there is
    /// one. Returns the error.
    pub(super) fn queue_error_about(
        &self,
        event: AuditEvent,
        account: &Email,
        error: AccountError,
    ) -> AccountError {
        if let Some(reason) = error.reason() {
            self.queue_refusal_about(event.with_reason(reason), account);
        }
        error
    }

    fn enqueue(&self, queued: QueuedEvent) {
        queued.event.origin.note.set_recorded();
        if self.waiting().add(queued) {
            self.queue.write_now.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the waiting events once a second, or earlier if there are many, until `stop` is cancelled.
    /// [`AuditTrail::flush`] writes the last ones.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.queue.write_now.notified() => {}
            }
            self.write_waiting(IfUnknown::Wait).await;
        }
    }

    /// Writes all waiting events now.
    pub async fn flush(&self) {
        self.write_waiting(IfUnknown::WriteWithoutUser).await;
    }

    async fn write_waiting(&self, if_unknown: IfUnknown) {
        let mut window = self.queue.window.lock().await;
        let queued = self.waiting().take();
        if queued.is_empty() {
            return;
        }
        let queued = self.look_up_accounts(queued, if_unknown).await;
        let pending = window.arrange(queued, self.clock.now());
        for pending in &pending {
            log_audit_event(&pending.event);
        }
        let mut written = 0;
        for batch in pending.chunks(BATCH) {
            let rows = batch.iter().map(|pending| (pending.event.clone(), pending.row)).collect();
            match self.store.record_counted_audit_events(rows).await {
                Ok(rows) => window.remember(batch, &rows),
                // No further batches: each would wait as long as this one.
                Err(error) => return log_unwritten(pending.len() - written, &error.chain()),
            }
            written += batch.len();
        }
    }

    /// Sets the user of each event that names its account by email. Without such an account the event has no
    /// user. The look-up may fail although the write that follows succeeds, as while `core_user` is locked.
    async fn look_up_accounts(
        &self,
        mut queued: Vec<QueuedEvent>,
        if_unknown: IfUnknown,
    ) -> Vec<QueuedEvent> {
        let emails: Vec<_> = queued.iter().filter_map(|queued| queued.account.clone()).collect();
        if emails.is_empty() {
            return queued;
        }
        let count = emails.len();
        let tokens: HashMap<Email, AuthToken> = match self.store.find_auth_tokens_by_email(emails).await {
            Ok(tokens) => tokens,
            Err(error) if if_unknown == IfUnknown::Wait => {
                let error = error.chain();
                tracing::warn!(
                    error,
                    "{count} audit events wait: the users that they are about cannot be read"
                );
                let (about_accounts, others): (Vec<_>, Vec<_>) =
                    queued.into_iter().partition(|queued| queued.account.is_some());
                let mut waiting = self.waiting();
                for queued in about_accounts {
                    waiting.add(queued);
                }
                return others;
            }
            Err(error) => {
                let error = error.chain();
                tracing::error!(
                    error,
                    "{count} audit events are written without the users that they are about"
                );
                HashMap::new()
            }
        };
        for queued in &mut queued {
            if let Some(email) = queued.account.take() {
                queued.event.user = tokens.get(&email).copied();
            }
        }
        queued
    }
}

fn log_unwritten(count: usize, error: &str) {
    tracing::error!(
        error,
        "{count} audit events could not be written to the database; they are in the log only"
    );
}
