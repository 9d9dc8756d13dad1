//! The time to which refused password checks are extended, so that it does not reveal which scheme a user's
//! hash has.
//!
//! A check with a wrong password takes the work of the current cost for most hashes ([`super::check`]). A
//! hash of another scheme takes the work of its own parameters: often less, sometimes more. While such hashes
//! are stored, each refused check waits until the slowest of them would be finished too. The wait occupies no
//! thread and no slot of the queue.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::format::{Family, StoredHash, Work};

/// The margin: a check may take longer than its measured time by this part of it (a quarter), because the
/// times of equal checks vary.
const MARGIN_DIVISOR: u32 = 4;

/// A check that takes less time than the known time of its work lowers the known time by this part of the
/// difference (a sixteenth). A check that takes more time raises it at once, so that the waits follow the
/// load.
const DECAY_DIVISOR: u32 = 16;

/// A work that stored hashes require, and the time that it takes on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) work: Work,
    pub(super) time: Duration,
}

/// Computes the time of refused checks.
pub(super) struct Envelope {
    max: Duration,
    /// The work of a hash of the current cost.
    current: Work,
    state: Mutex<State>,
}

struct State {
    /// False while the stored hashes are not known: from [`Envelope::assume_slowest`] until
    /// [`Envelope::replace`].
    is_complete: bool,
    /// The greatest known work of each family.
    greatest: Vec<Measured>,
}

impl Envelope {
    /// Creates an envelope whose time is at most `max`. The time is zero until another work than `current` is
    /// known.
    pub(super) const fn new(max: Duration, current: Work) -> Self {
        Self { max, current, state: Mutex::new(State { is_complete: true, greatest: Vec::new() }) }
    }

    /// Sets the time to its maximum until [`Envelope::replace`] is called.
    pub(super) fn assume_slowest(&self) {
        self.state().is_complete = false;
    }

    /// Replaces the measurements by those of the greatest work of each family.
    pub(super) fn replace(&self, greatest: Vec<Measured>) {
        *self.state() = State { is_complete: true, greatest };
    }

    /// Takes a finished check of a wrong password into account. A work that was not known becomes known.
    pub(super) fn observe(&self, found: Measured) {
        let mut state = self.state();
        match state.greatest.iter_mut().find(|known| known.work.family == found.work.family) {
            None => state.greatest.push(found),
            Some(known) if known.work.amount < found.work.amount => *known = found,
            Some(known) if known.work.amount > found.work.amount => {}
            Some(known) if known.time < found.time => known.time = found.time,
            Some(known) => {
                let excess = known.time.saturating_sub(found.time);
                known.time = known.time.saturating_sub(excess / DECAY_DIVISOR);
            }
        }
    }

    /// Returns the time that a refused check takes at least, from the start of its work.
    pub(super) fn time(&self) -> Duration {
        let state = self.state();
        if !state.is_complete {
            return self.max;
        }
        if state.greatest.iter().all(|known| known.work == self.current) {
            return Duration::ZERO;
        }
        let slowest = state.greatest.iter().map(|known| known.time).max().unwrap_or_default();
        (slowest + slowest / MARGIN_DIVISOR).min(self.max)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The greatest work of each family among stored hashes, collected one hash at a time.
pub struct HashSurvey {
    cost: u32,
    current: Work,
    /// The hash with the greatest work of each family. A hash whose work is `current` is left out.
    greatest: Vec<(Work, StoredHash)>,
}

impl HashSurvey {
    pub(super) const fn new(cost: u32) -> Self {
        Self { cost, current: Work::of_bcrypt(cost), greatest: Vec::new() }
    }

    /// Takes a value of the column `password` into account. A value that is no readable hash adds nothing: a
    /// password for it is compared with the dummy hash.
    pub fn add(&mut self, stored: &str) {
        let Ok(hash) = StoredHash::parse(stored) else { return };
        let work = hash.work(self.cost);
        if work == self.current {
            return;
        }
        match self.greatest.iter_mut().find(|(known, _)| known.family == work.family) {
            None => self.greatest.push((work, hash)),
            Some((known, _)) if known.amount >= work.amount => {}
            Some(known) => *known = (work, hash),
        }
    }

    /// Returns the hashes to measure: none if all stored hashes take the work of the current cost; otherwise
    /// one of each family, among them `dummy_hash` or a slower bcrypt hash.
    pub(super) fn into_measured(mut self, dummy_hash: StoredHash) -> Vec<(Work, StoredHash)> {
        let is_uniform = self.greatest.is_empty();
        if !is_uniform && self.greatest.iter().all(|(work, _)| work.family != Family::Bcrypt) {
            self.greatest.push((self.current, dummy_hash));
        }
        self.greatest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Work = Work::of_bcrypt(12);
    const PBKDF2: Work = Work { family: Family::Pbkdf2Sha256, amount: 1_000_000 };

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn envelope(known: &[(Work, u64)]) -> Envelope {
        let envelope = Envelope::new(millis(1_000), CURRENT);
        for (work, time) in known {
            envelope.observe(Measured { work: *work, time: millis(*time) });
        }
        envelope
    }

    #[test]
    fn no_check_waits_while_all_hashes_take_the_same_work() {
        assert_eq!(envelope(&[]).time(), Duration::ZERO);
        assert_eq!(envelope(&[(CURRENT, 240), (CURRENT, 250)]).time(), Duration::ZERO);
    }

    #[test]
    fn the_slowest_work_determines_the_time_whichever_scheme_it_has() {
        assert_eq!(envelope(&[(CURRENT, 240), (PBKDF2, 80)]).time(), millis(300));
        assert_eq!(envelope(&[(CURRENT, 240), (PBKDF2, 400)]).time(), millis(500));
        assert_eq!(envelope(&[(CURRENT, 240), (PBKDF2, 4_000)]).time(), millis(1_000));
        let higher_cost = Work::of_bcrypt(13);
        assert_eq!(envelope(&[(higher_cost, 480), (CURRENT, 240)]).time(), millis(600));
    }

    #[test]
    fn the_time_rises_at_once_and_falls_slowly() {
        let envelope = envelope(&[(PBKDF2, 80)]);
        let time_after = |time| {
            envelope.observe(Measured { work: PBKDF2, time: millis(time) });
            envelope.time()
        };
        assert_eq!(time_after(160), millis(200));
        assert_eq!(time_after(80), millis(155) + millis(155) / 4);
        let less = Measured { work: Work { amount: 1_000, ..PBKDF2 }, time: millis(1) };
        envelope.observe(less);
        assert_eq!(envelope.time(), millis(155) + millis(155) / 4);
    }

    #[test]
    fn the_time_is_the_maximum_until_the_stored_hashes_are_known() {
        let envelope = envelope(&[]);
        envelope.assume_slowest();
        assert_eq!(envelope.time(), millis(1_000));
        envelope.replace(vec![Measured { work: CURRENT, time: millis(240) }]);
        assert_eq!(envelope.time(), Duration::ZERO);
    }
}
