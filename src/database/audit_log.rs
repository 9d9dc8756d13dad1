//! The audit events of committed transactions, in the log.

use crate::domain::{AuditEvent, ClientAgent};

/// The audit events that a transaction has recorded. `write!` logs them after its commit, so that every event
/// in the log belongs to a committed change.
#[derive(Debug, Default)]
pub(crate) struct RecordedEvents(Vec<AuditEvent>);

impl RecordedEvents {
    /// Adds an event that the transaction has recorded.
    pub(crate) fn push(&mut self, event: AuditEvent) {
        self.0.push(event);
    }

    /// Writes the events to the log, and notes in their calls that they are recorded.
    pub(crate) fn log(&self) {
        for event in &self.0 {
            log_audit_event(event);
            event.origin.note.set_recorded();
        }
    }
}

/// Writes an event to the log, with target `audit`.
pub fn log_audit_event(event: &AuditEvent) {
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
