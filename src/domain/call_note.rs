//! What is known about a call while it runs.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::AuthToken;

/// What is known about a call while it runs: whether an event of the call was recorded, and the user that the
/// call is about. If no event was recorded, one for the call as a whole is queued. An event of that kind that
/// names no user gets the user of the note. Clones share the note; the default note remembers nothing.
#[derive(Clone, Debug, Default)]
pub struct CallNote(Option<Arc<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    is_recorded: AtomicBool,
    user: OnceLock<AuthToken>,
}

impl CallNote {
    /// Creates the note of a new call.
    #[must_use]
    pub fn begin() -> Self {
        Self(Some(Arc::default()))
    }

    /// Sets the user that the call is about. The first one remains.
    pub fn set_user(&self, user: AuthToken) {
        if let Some(noted) = &self.0 {
            noted.user.get_or_init(|| user);
        }
    }

    /// Returns the user that the call is about, if it is known.
    #[must_use]
    pub fn user(&self) -> Option<AuthToken> {
        self.0.as_ref().and_then(|noted| noted.user.get().copied())
    }

    /// Notes that an event of the call was committed, or is queued to be written.
    pub fn set_recorded(&self) {
        if let Some(noted) = &self.0 {
            noted.is_recorded.store(true, Ordering::Release);
        }
    }

    /// Notes it as [`CallNote::set_recorded`] does. Returns false if it was noted before.
    #[must_use]
    pub fn try_set_recorded(&self) -> bool {
        self.0.as_ref().is_none_or(|noted| !noted.is_recorded.swap(true, Ordering::AcqRel))
    }

    /// True if an event of the call was committed, or is queued to be written.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.is_recorded.load(Ordering::Acquire))
    }
}

/// All notes are equal: a note is not part of the identity of an [`Origin`](super::Origin).
impl PartialEq for CallNote {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for CallNote {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_note_share_what_is_known_about_the_call() {
        let note = CallNote::begin();
        let clone = note.clone();
        assert!(!clone.is_recorded() && clone.user().is_none());
        let (first, second) = (AuthToken::from_random([1; 16]), AuthToken::from_random([2; 16]));
        note.set_user(first);
        note.set_user(second);
        note.set_recorded();
        assert!(clone.is_recorded());
        assert_eq!(clone.user(), Some(first));
    }

    #[test]
    fn the_default_note_remembers_nothing() {
        let note = CallNote::default();
        note.set_user(AuthToken::from_random([1; 16]));
        note.set_recorded();
        assert!(!note.is_recorded() && note.user().is_none());
    }
}
