//! The gate that authenticates callers.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    caller::{ANYBODY, Caller},
    registry::Callers,
    rights::{MethodPattern, Rights, UserFields},
    token::ServiceToken,
};

/// Authenticates callers against the callers file as last loaded. Without a file it authenticates none, and
/// gives every request all rights. Clones share the callers that [`CallerGate::replace`] sets.
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
            methods: vec![MethodPattern::new("*")],
            fields: UserFields::ALL,
            tells_client: true,
            receives_mail_tokens: true,
            calls_max: usize::MAX,
        };
        let caller = Caller::new(ANYBODY, rights);
        Self(Arc::new(Gate::Open(Arc::new(caller))))
    }

    /// Creates a gate that authenticates only `callers`.
    #[must_use]
    pub fn restricted(callers: Callers) -> Self {
        Self(Arc::new(Gate::Restricted(RwLock::new(Arc::new(callers)))))
    }

    /// True if the gate authenticates no caller and gives every request all rights.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(*self.0, Gate::Open(_))
    }

    /// Returns the caller that `token` authenticates or, if there is no token, a certificate with these
    /// names. Returns `None` if no caller matches. An open gate returns the caller [`ANYBODY`].
    #[must_use]
    pub fn identify(&self, token: Option<&ServiceToken>, certificate: &[String]) -> Option<Arc<Caller>> {
        match &*self.0 {
            Gate::Open(caller) => Some(Arc::clone(caller)),
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
    fn a_gate_authenticates_only_the_callers_set_last() {
        let (first, second) = (ServiceToken::from_random([1; 32]), ServiceToken::from_random([2; 32]));
        let callers = |token: &ServiceToken| {
            let text = format!(
                "[bff]\ntoken-hashes = [\"{}\"]\nmethods = [\"*\"]\nuser-fields = []\n",
                token.hash()
            );
            Callers::parse(&text, &[]).unwrap()
        };
        let gate = CallerGate::restricted(callers(&first));
        let name =
            |token: Option<&ServiceToken>| gate.identify(token, &[]).map(|caller| caller.name().to_owned());
        assert_eq!(
            (name(Some(&first)), name(Some(&second)), name(None)),
            (Some("bff".to_owned()), None, None)
        );

        gate.replace(callers(&second));
        assert_eq!((name(Some(&first)), name(Some(&second))), (None, Some("bff".to_owned())));
        assert!(CallerGate::open().identify(None, &[]).is_some());
        assert!(CallerGate::open().is_open() && !gate.is_open());
    }
}
