//! An event that waits, what equal events have in common, and the budget that an event is counted in.

use std::sync::Arc;

use crate::domain::{AuditEvent, AuditKind, AuthToken, ClientAddress, ClientAgent, Email, Origin};

/// An event that waits.
#[derive(Debug, Clone)]
pub(in crate::accounts) struct QueuedEvent {
    pub(in crate::accounts) event: AuditEvent,
    /// Email of the account that the event is about, if that account has not been looked up yet.
    pub(in crate::accounts) account: Option<Email>,
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

/// A budget: its events share a limit on how many of them differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum EventBudget {
    /// Refusals of all callers with this name that did not authenticate.
    Unauthenticated(Arc<str>),
    /// Events of this caller that are about no account.
    Caller(Arc<str>),
    /// Refusals about this account. It is named by its email until it has been looked up.
    Refusals(Option<AuthToken>, Option<Email>),
    /// Reads of this account. Apart from refusals, so that many reads hide no guess.
    Reads(Option<AuthToken>),
}

impl QueuedEvent {
    /// Returns the key. It omits the agent and the resource of a caller that did not authenticate: such a
    /// caller could send a new value in each call, and each value would add a row. An event about an account
    /// keeps them.
    pub(super) fn key(&self) -> EventKey {
        let AuditEvent { kind, reason, user, origin, resource, .. } = &self.event;
        let is_about_account = self.event.user.is_some() || self.account.is_some();
        let has_details = is_about_account || origin.is_authenticated();
        EventKey {
            kind: *kind,
            reason: *reason,
            caller: Arc::clone(&origin.caller),
            user: *user,
            account: self.account.clone(),
            resource: resource.clone().filter(|_| has_details),
            peer: origin.peer.map(ClientAddress::of),
            client: origin.client,
            agent: origin.agent.clone().filter(|_| has_details),
        }
    }

    /// Returns the budget that the event is counted in.
    pub(super) fn budget(&self) -> EventBudget {
        let (user, caller) = (self.event.user, &self.event.origin.caller);
        match (user.is_some() || self.account.is_some(), self.event.reason) {
            (true, Some(_)) => EventBudget::Refusals(user, self.account.clone()),
            (true, None) => EventBudget::Reads(user),
            (false, _) if self.event.origin.is_authenticated() => EventBudget::Caller(Arc::clone(caller)),
            (false, _) => EventBudget::Unauthenticated(Arc::clone(caller)),
        }
    }

    /// Reduces an event to its kind, reason, caller and account.
    pub(super) fn without_details(self) -> Self {
        let AuditEvent { at, kind, reason, user, origin, count, .. } = self.event;
        let origin = Origin { request_id: origin.request_id, ..Origin::local(&origin.caller) };
        Self { event: AuditEvent { at, kind, reason, user, resource: None, origin, count }, ..self }
    }

    /// Removes the account, so that the event is about none.
    pub(super) fn without_account(self) -> Self {
        Self { event: self.event.with_user(None), account: None }
    }
}
