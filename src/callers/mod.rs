//! Who may call what, and what of a user they may see.
//!
//! A caller is another service: the BFF, the agent, an operator's script. It proves itself with a service token, of which only
//! the hash is in the file of callers ([`Callers::parse`]), or with a certificate. The file names all that a caller may do; what it
//! does not name is refused. A caller is never a user: who somebody is does not follow from who asks.

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

/// Names in the audit trail that are no caller's: whoever comes where the gate is open, whoever has proven nothing, the command
/// line, the file of callers itself, the service by itself, and whoever opened one of its pages.
pub const ANYBODY: &str = "anybody";
/// [`ANYBODY`]
pub const NOBODY: &str = "nobody";
/// [`ANYBODY`]
pub const COMMAND_LINE: &str = "command-line";
/// [`ANYBODY`]
pub const CALLERS_FILE: &str = "callers-file";
/// [`ANYBODY`]
pub const SERVICE: &str = "service";
/// [`ANYBODY`]
pub const PAGES: &str = "pages";

/// Another service, and what it may do.
#[derive(Debug)]
pub struct Caller {
    name: Arc<str>,
    rights: Rights,
    calls: AtomicUsize,
}

/// What a caller may do; by default nothing.
#[derive(Debug, Default)]
struct Rights {
    methods: Vec<MethodPattern>,
    fields: UserFields,
    tells_client: bool,
    receives_mail_tokens: bool,
    calls_max: usize,
}

/// A call that is under way.
#[derive(Debug)]
pub struct Ongoing(Arc<Caller>);

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who asks: a caller, for somebody.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The service that calls.
    pub caller: Arc<Caller>,
    /// The end user's address, if a caller tells it that may.
    pub client: Option<ClientAddress>,
    /// The address of the connection, where there is one.
    pub peer: Option<IpAddr>,
}

impl Requester {
    /// Who asks, to be written down: with the end user's program, if the caller is believed what it tells of it.
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
        Self { name: name.into(), rights, calls: AtomicUsize::new(0) }
    }

    /// Who may ask for health and nothing else, and stands for those of whom nothing is asked.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        static CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            let methods = vec![MethodPattern("Health/*".to_owned())];
            Arc::new(Caller::new(NOBODY, Rights { methods, calls_max: usize::MAX, ..Rights::default() }))
        });
        Arc::clone(&CALLER)
    }

    /// Begins a call; nothing when as many are under way as may be.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Option<Ongoing> {
        let ongoing = Ongoing(Arc::clone(self));
        // Counted before it is looked at: of those who come at once none slips through.
        (self.calls.fetch_add(1, Ordering::Relaxed) < self.rights.calls_max).then_some(ongoing)
    }

    /// Its name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may see of a user.
    #[must_use]
    pub const fn fields(&self) -> UserFields {
        self.rights.fields
    }

    /// Whether what it says of its end user's address and program is believed.
    #[must_use]
    pub const fn tells_client(&self) -> bool {
        self.rights.tells_client
    }

    /// Whether it may be given the token of a link, to mail it itself.
    #[must_use]
    pub const fn receives_mail_tokens(&self) -> bool {
        self.rights.receives_mail_tokens
    }

    /// Whether it may call the method with this path, `/package.Service/Method`.
    #[must_use]
    pub fn may_call(&self, path: &str) -> bool {
        self.rights.methods.iter().any(|pattern| pattern.matches(path))
    }
}

/// `Service/Method`, `Service/*` or `*`, without the package.
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
            Some((of, "*")) => of == service,
            Some((of, name)) => of == service && name == method,
        }
    }
}

/// The fields of `User` that a caller may see; `auth_token`, by which everybody knows a user, is always among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each field of the message")]
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

/// All callers that are known.
#[derive(Debug, Default)]
pub struct Callers {
    by_token: HashMap<TokenHash, Arc<Caller>>,
    by_certificate: HashMap<String, Arc<Caller>>,
}

impl Callers {
    /// The caller with this token.
    #[must_use]
    pub fn with_token(&self, token: &ServiceToken) -> Option<Arc<Caller>> {
        // Found by its hash: how long that takes tells nothing of the token.
        self.by_token.get(&token.hash()).cloned()
    }

    /// The caller that a certificate with these names proves; nobody when they are those of two.
    #[must_use]
    pub fn with_certificate(&self, names: &[String]) -> Option<Arc<Caller>> {
        let mut callers = names.iter().filter_map(|name| self.by_certificate.get(name));
        let caller = callers.next()?;
        callers.all(|other| Arc::ptr_eq(other, caller)).then(|| Arc::clone(caller))
    }

    /// Whether a certificate proves any of them.
    #[must_use]
    pub fn need_certificates(&self) -> bool {
        !self.by_certificate.is_empty()
    }

    /// The names of all, for the log.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let callers = self.by_token.values().chain(self.by_certificate.values());
        let mut names: Vec<_> = callers.map(|caller| &*caller.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Who may call at this moment. Clones share what [`CallerGate::replace`] changes.
#[derive(Clone)]
pub struct CallerGate(Arc<Gate>);

enum Gate {
    /// Whoever reaches the port may do everything.
    Open(Arc<Caller>),
    /// Who is in the file, as it was last read.
    Kept(RwLock<Arc<Callers>>),
}

impl CallerGate {
    /// Lets everybody do everything: for a developer's own machine.
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

    /// Lets in who is among `callers`.
    #[must_use]
    pub fn kept(callers: Callers) -> Self {
        Self(Arc::new(Gate::Kept(RwLock::new(Arc::new(callers)))))
    }

    /// The caller that proves itself with `token`, or without one with a certificate of these names; where the gate is open,
    /// anybody.
    #[must_use]
    pub fn identify(&self, token: Option<&ServiceToken>, certificate: &[String]) -> Option<Arc<Caller>> {
        match &*self.0 {
            Gate::Open(anybody) => Some(Arc::clone(anybody)),
            Gate::Kept(callers) => {
                let callers = Arc::clone(&callers.read().unwrap_or_else(PoisonError::into_inner));
                match token {
                    Some(token) => callers.with_token(token),
                    None => callers.with_certificate(certificate),
                }
            }
        }
    }

    /// Knows other callers from the next call on; calls under way go on. An open gate stays open.
    pub fn replace(&self, callers: Callers) {
        if let Gate::Kept(kept) = &*self.0 {
            *kept.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
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
    fn a_pattern_is_a_method_a_service_or_everything() {
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
    fn a_caller_has_no_more_calls_under_way_than_it_may() {
        let caller = Arc::new(Caller::new("bff", Rights { calls_max: 2, ..Rights::default() }));
        let (first, second) = (caller.begin(), caller.begin());
        assert!(first.is_some() && second.is_some());
        for _ in 0..10 {
            assert!(caller.begin().is_none());
        }
        drop(first);
        assert!(caller.begin().is_some());
    }

    #[test]
    fn a_gate_knows_whom_it_was_last_told_of() {
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
