//! The callers of a callers file, by their credentials.

use std::{collections::HashMap, sync::Arc};

use super::{
    caller::Caller,
    token::{ServiceToken, TokenHash},
};

/// The callers of a callers file.
#[derive(Debug, Default)]
pub struct Callers {
    by_token: HashMap<TokenHash, Arc<Caller>>,
    by_certificate: HashMap<String, Arc<Caller>>,
}

impl Callers {
    /// Lets this token authenticate the caller. Returns false if it authenticated one before.
    pub(super) fn add_token(&mut self, hash: TokenHash, caller: &Arc<Caller>) -> bool {
        self.by_token.insert(hash, Arc::clone(caller)).is_none()
    }

    /// Lets a certificate with this name authenticate the caller. Returns false if it authenticated one
    /// before.
    pub(super) fn add_certificate(&mut self, name: String, caller: &Arc<Caller>) -> bool {
        self.by_certificate.insert(name, Arc::clone(caller)).is_none()
    }

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
        let mut names: Vec<_> = callers.map(|caller| caller.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
