//! Callers: their authentication, their rights to call methods, and the user fields that they may see.
//!
//! A caller is another service: the BFF, the agent, an operator's script. It authenticates with a service
//! token, of which the callers file ([`Callers::parse`]) contains only the hash, or with a client
//! certificate. The file lists the rights of each caller; everything else is denied. A caller is never a
//! user: authenticating a caller does not authenticate a user.

mod file;
mod token;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use uuid::Uuid;

pub use self::{
    file::{CallersError, check_name},
    token::{ServiceToken, TokenHash},
};
use crate::domain::{ClientAddress, ClientAgent, Origin};

/// Caller name in the audit trail for every caller of a server without a callers file.
pub const ANYBODY: &str = "anybody";
/// Caller name in the audit trail for a caller that is not authenticated.
pub const NOBODY: &str = "nobody";
/// Caller name in the audit trail for the command line.
pub const COMMAND_LINE: &str = "command-line";
/// Caller name in the audit trail for a reload of the callers file.
pub const CALLERS_FILE: &str = "callers-file";
/// Caller name in the audit trail for background work of the service itself.
pub const SERVICE: &str = "service";
/// Caller name in the audit trail for a button press on one of the pages.
pub const PAGES: &str = "pages";

/// A service that calls this one, with its rights.
#[derive(Debug)]
pub struct Caller {
    name: Arc<str>,
    rights: Rights,
    calls_in_flight: AtomicUsize,
}

/// The rights of a caller; the default has none.
#[derive(Debug, Default)]
struct Rights {
    methods: Vec<MethodPattern>,
    fields: UserFields,
    tells_client: bool,
    receives_mail_tokens: bool,
    calls_max: usize,
}

/// One of the calls that a caller may have in flight. Dropping it ends the call.
#[derive(Debug)]
pub struct CallSlot(Arc<Caller>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The source of a request: the caller, and the end user's address if it is known.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The calling service.
    pub caller: Arc<Caller>,
    /// The end user's address, if the caller sent it and has the right `tells-client`.
    pub client: Option<ClientAddress>,
    /// The IP address of the connection, if there is one.
    pub peer: Option<IpAddr>,
}

impl Requester {
    /// Returns the source for the audit trail. `agent`, the end user's program, is dropped if the caller does
    /// not have the right `tells-client`.
    #[must_use]
    pub fn origin(&self, agent: Option<ClientAgent>, request_id: Option<Uuid>) -> Origin {
        let agent = agent.filter(|_| self.caller.tells_client());
        Origin {
            caller: Arc::clone(&self.caller.name),
            peer: self.peer,
            client: self.client,
            agent,
            request_id,
        }
    }
}

impl Caller {
    fn new(name: &str, rights: Rights) -> Self {
        Self { name: name.into(), rights, calls_in_flight: AtomicUsize::new(0) }
    }

    /// Returns the caller [`NOBODY`] of requests without authentication. It may call only the health service.
    #[must_use]
    pub fn unauthenticated() -> Arc<Self> {
        static CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            let methods = vec![MethodPattern("Health/*".to_owned())];
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

    /// The name in the callers file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user fields that the caller may see.
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

/// A pattern for methods: `Service/Method`, `Service/*` or `*`, without the package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MethodPattern(String);

impl MethodPattern {
    fn matches(&self, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return false;
        };
        let service = service.rsplit('.').next().unwrap_or(service);
        match self.0.split_once('/') {
            None => self.0 == "*",
            Some((wanted, "*")) => wanted == service,
            Some((wanted, name)) => wanted == service && name == method,
        }
    }
}

/// The fields of `User` that a caller may see. `auth_token` is always visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one flag per field of the message")]
pub struct UserFields {
    /// `username`
    pub username: bool,
    /// `email`
    pub email: bool,
    /// `is_verified`
    pub is_verified: bool,
    /// `created_at`
    pub created_at: bool,
    /// `updated_at`
    pub updated_at: bool,
}

impl UserFields {
    /// Every field.
    pub const ALL: Self =
        Self { username: true, email: true, is_verified: true, created_at: true, updated_at: true };
}

/// The callers of a callers file.
#[derive(Debug, Default)]
pub struct Callers {
    by_token: HashMap<TokenHash, Arc<Caller>>,
    by_certificate: HashMap<String, Arc<Caller>>,
}

impl Callers {
    /// Returns the caller with this token.
    #[must_use]
    pub fn find_by_token(&self, token: &ServiceToken) -> Option<Arc<Caller>> {
        // The look-up compares hashes, so its time reveals nothing about the token.
        self.by_token.get(&token.hash()).cloned()
    }

    /// Returns the caller that a certificate with these names authenticates; `None` if no caller or more than
    /// one has one of the names.
    #[must_use]
    pub fn find_by_certificate(&self, names: &[String]) -> Option<Arc<Caller>> {
        let mut callers = names.iter().filter_map(|name| self.by_certificate.get(name));
        let caller = callers.next()?;
        callers.all(|other| Arc::ptr_eq(other, caller)).then(|| Arc::clone(caller))
    }

    /// True if any caller authenticates with a certificate.
    #[must_use]
    pub fn any_uses_certificate(&self) -> bool {
        !self.by_certificate.is_empty()
    }

    /// The names of all callers, sorted, for the log.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let callers = self.by_token.values().chain(self.by_certificate.values());
        let mut names: Vec<_> = callers.map(|caller| &*caller.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Authenticates callers, by the callers file as last loaded or, without a file, not at all. Clones share the
/// callers that [`CallerGate::replace`] sets.
#[derive(Clone)]
pub struct CallerGate(Arc<Gate>);

enum Gate {
    /// No authentication: every request has all rights, as this caller.
    Open(Arc<Caller>),
    /// Only these callers are authenticated.
    Restricted(RwLock<Arc<Callers>>),
}

impl CallerGate {
    /// Creates a gate that gives every request all rights, for a development machine.
    #[must_use]
    pub fn open() -> Self {
        let rights = Rights {
            methods: vec![MethodPattern("*".to_owned())],
            fields: UserFields::ALL,
            tells_client: true,
            receives_mail_tokens: true,
            calls_max: usize::MAX,
        };
        let anybody = Caller::new(ANYBODY, rights);
        Self(Arc::new(Gate::Open(Arc::new(anybody))))
    }

    /// Creates a gate that authenticates only `callers`.
    #[must_use]
    pub fn kept(callers: Callers) -> Self {
        Self(Arc::new(Gate::Restricted(RwLock::new(Arc::new(callers)))))
    }

    /// Returns the caller that `token` authenticates or, if there is no token, a certificate with these
    /// names. Returns `None` if no caller matches. An open gate returns the caller [`ANYBODY`].
    #[must_use]
    pub fn identify(&self, token: Option<&ServiceToken>, certificate: &[String]) -> Option<Arc<Caller>> {
        match &*self.0 {
            Gate::Open(anybody) => Some(Arc::clone(anybody)),
            Gate::Restricted(callers) => {
                let callers = Arc::clone(&callers.read().unwrap_or_else(PoisonError::into_inner));
                match token {
                    Some(token) => callers.find_by_token(token),
                    None => callers.find_by_certificate(certificate),
                }
            }
        }
    }

    /// Replaces the callers, with effect from the next call on. Calls in flight continue. An open gate does
    /// not change.
    pub fn replace(&self, callers: Callers) {
        if let Gate::Restricted(current) = &*self.0 {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
        }
    }
}

impl fmt::Debug for CallerGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerGate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_one_method_one_service_or_everything() {
        let path = "/kairos.identity.v1.IdentityService/Login";
        for (pattern, matches) in [
            ("*", true),
            ("IdentityService/*", true),
            ("IdentityService/Login", true),
            ("IdentityService/login", false),
            ("IdentityService/Log", false),
            ("Identity/*", false),
            ("Service/*", false),
            ("Login", false),
        ] {
            assert_eq!(MethodPattern(pattern.to_owned()).matches(path), matches, "{pattern}");
        }
        assert!(!MethodPattern("IdentityService/*".to_owned()).matches("IdentityService/Login"));
    }

    #[test]
    fn the_calls_in_flight_of_a_caller_are_limited() {
        let caller = Arc::new(Caller::new("bff", Rights { calls_max: 2, ..Rights::default() }));
        let (first, second) = (caller.try_begin_call(), caller.try_begin_call());
        assert!(first.is_some() && second.is_some());
        for _ in 0..10 {
            assert!(caller.try_begin_call().is_none());
        }
        drop(first);
        assert!(caller.try_begin_call().is_some());
    }

    #[test]
    fn a_gate_authenticates_only_the_callers_set_last() {
        let (first, second) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let callers = |token: &ServiceToken| {
            let text = format!(
                "[bff]\ntoken-hashes = [\"{}\"]\nmethods = [\"*\"]\nuser-fields = []\n",
                token.hash()
            );
            Callers::parse(&text, &[]).unwrap()
        };
        let gate = CallerGate::kept(callers(&first));
        let name =
            |token: Option<&ServiceToken>| gate.identify(token, &[]).map(|caller| caller.name().to_owned());
        assert_eq!(
            (name(Some(&first)), name(Some(&second)), name(None)),
            (Some("bff".to_owned()), None, None)
        );

        gate.replace(callers(&second));
        assert_eq!((name(Some(&first)), name(Some(&second))), (None, Some("bff".to_owned())));
        assert!(CallerGate::open().identify(None, &[]).is_some());
    }
}
