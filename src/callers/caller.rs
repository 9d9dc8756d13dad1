//! A caller, and the source of a request.

use std::{
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use uuid::Uuid;

use super::rights::{MethodPattern, Rights, UserFields};
use crate::domain::{CallNote, ClientAddress, ClientAgent, NOBODY, Origin};

/// Caller name in the audit trail for every caller of a server without a callers file.
pub const ANYBODY: &str = "anybody";
/// Caller name in the audit trail for the command line.
pub const COMMAND_LINE: &str = "command-line";
/// Caller name in the audit trail for a reload of the callers file.
pub const CALLERS_FILE: &str = "callers-file";
/// Caller name in the audit trail for background work of the service itself.
pub const SERVICE: &str = "service";

/// A service that calls this one, with its rights.
#[derive(Debug)]
pub struct Caller {
    name: Arc<str>,
    rights: Rights,
    calls_in_flight: AtomicUsize,
}

/// The right of a caller to one call in flight. Dropping it releases the slot.
#[derive(Debug)]
pub struct CallSlot(Arc<Caller>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The source of a request: the caller, and the end user's address and program if they are known.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The calling service.
    pub caller: Arc<Caller>,
    /// The end user's address, if the caller sent it and has the right `tells-client`.
    pub client: Option<ClientAddress>,
    /// The end user's program, if the caller sent it and has the right `tells-client`.
    pub agent: Option<ClientAgent>,
    /// The IP address of the connection, if there is one.
    pub peer: Option<IpAddr>,
    /// What is known about the call so far, for the audit trail.
    pub note: CallNote,
}

impl Requester {
    /// Returns the source for the audit trail.
    #[must_use]
    pub fn origin(&self, request_id: Option<Uuid>) -> Origin {
        Origin {
            caller: Arc::clone(&self.caller.name),
            peer: self.peer,
            client: self.client,
            agent: self.agent.clone(),
            request_id,
            note: self.note.clone(),
        }
    }
}

impl Caller {
    pub(super) fn new(name: &str, rights: Rights) -> Self {
        Self { name: name.into(), rights, calls_in_flight: AtomicUsize::new(0) }
    }

    /// Returns the caller [`NOBODY`] of requests without authentication. It may call only the health service.
    #[must_use]
    pub fn unauthenticated() -> Arc<Self> {
        static CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            let methods = vec![MethodPattern::new("Health/*")];
            Arc::new(Caller::new(NOBODY, Rights { methods, calls_max: usize::MAX, ..Rights::default() }))
        });
        Arc::clone(&CALLER)
    }

    /// Counts a call as in flight until the slot is dropped. Returns `None` if the caller's limit is reached.
    #[must_use]
    pub fn try_begin_call(self: &Arc<Self>) -> Option<CallSlot> {
        let slot = CallSlot(Arc::clone(self));
        // Count first, compare then: concurrent calls cannot exceed the limit. A refused slot is dropped,
        // which takes its count back.
        (self.calls_in_flight.fetch_add(1, Ordering::Relaxed) < self.rights.calls_max).then_some(slot)
    }

    /// Returns the name: that of the entry in the callers file, or a reserved one such as [`NOBODY`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name to be kept.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Returns the user fields that the caller may see.
    #[must_use]
    pub const fn fields(&self) -> UserFields {
        self.rights.fields
    }

    /// True if the server accepts the end user's address and program that the caller sends.
    #[must_use]
    pub const fn tells_client(&self) -> bool {
        self.rights.tells_client
    }

    /// True if the caller may receive the token of a link, to mail the link itself.
    #[must_use]
    pub const fn receives_mail_tokens(&self) -> bool {
        self.rights.receives_mail_tokens
    }

    /// True if the caller may call the method with this path, `/package.Service/Method`.
    #[must_use]
    pub fn may_call(&self, path: &str) -> bool {
        self.rights.methods.iter().any(|pattern| pattern.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_in_flight_of_a_caller_are_limited() {
        /// More than once, because a refused call must not release the slot of another one.
        const REFUSED_CALLS: usize = 10;
        let caller = Arc::new(Caller::new("bff", Rights { calls_max: 2, ..Rights::default() }));
        let (first, second) = (caller.try_begin_call(), caller.try_begin_call());
        assert!(first.is_some() && second.is_some());
        for _ in 0..REFUSED_CALLS {
            assert!(caller.try_begin_call().is_none());
        }
        drop(first);
        assert!(caller.try_begin_call().is_some());
    }
}
