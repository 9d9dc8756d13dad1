//! Pauses the deletion of expired rows after the clock has jumped forward.
//!
//! After a jump of a month, rows look expired that are not. What a wrong time refuses works again when the
//! clock is corrected; what it deletes is lost. So the operator gets time to correct the clock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{clock::Clock, database::DatabaseError, domain::Timestamp, store::Store};

/// The smallest difference between the civil and the monotonic clock that counts as a jump. Both follow the
/// same corrections of NTP, so they differ only after a jump, or after the machine was suspended.
const JUMP_MIN: Duration = Duration::from_hours(1);

/// The shortest time without any audit event, before the process started, that counts as a jump.
const SILENCE_MIN: Duration = Duration::from_hours(24);

/// A reading of both clocks.
type Reading = (Timestamp, Instant);

/// Says whether rows may be deleted by their age. Compares the civil clock with the monotonic one, and once
/// with the stored times, before anything is deleted. Cheap to clone; all clones share one state, so that a
/// pause holds for the periodic deletion and for registrations alike.
#[derive(Debug, Clone)]
pub struct ClockWatch(Arc<Mutex<Readings>>);

impl ClockWatch {
    /// Takes the first readings. A `pause` of zero never pauses.
    #[must_use]
    pub fn new(clock: Clock, pause: Duration) -> Self {
        Self(Arc::new(Mutex::new(Readings::new(clock, pause))))
    }

    /// Pauses if the times in `store` show that the clock may have jumped before this process watched it.
    /// Only the first success has an effect.
    ///
    /// # Errors
    /// A database error.
    pub(super) async fn compare_with_store(&self, store: &Store) -> Result<(), DatabaseError> {
        let unchecked = self.readings().unchecked_period();
        if let Some((begin, end)) = unchecked {
            let silence = store.silence_of_audit(begin, end, SILENCE_MIN).await?;
            self.readings().compare_with_stored_times(silence);
        }
        Ok(())
    }

    /// Returns the time against which the age of rows is judged, or `None` while nothing may be deleted by
    /// its age. Logs the beginning and the end of a pause.
    ///
    /// # Errors
    /// A database error, if the clock has not yet been compared with the times in `store`.
    pub(super) async fn deletion_time(&self, store: &Store) -> Result<Option<Timestamp>, DatabaseError> {
        self.compare_with_store(store).await?;
        Ok(self.readings().deletion_time())
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The readings of both clocks that show a jump.
#[derive(Debug)]
struct Readings {
    clock: Clock,
    pause: Duration,
    /// The reading at the start, until it is compared with the stored times.
    unchecked: Option<Reading>,
    /// The reading that later ones are compared with: of the start, or of the end of the last pause. `None`
    /// if the clock may have been wrong at the start.
    trusted: Option<Reading>,
    /// The previous reading.
    last: Reading,
    /// `None` while expired rows are deleted.
    paused_since: Option<Instant>,
}

impl Readings {
    fn new(clock: Clock, pause: Duration) -> Self {
        let last = (clock.now(), clock.instant());
        Self { clock, pause, unchecked: Some(last), trusted: Some(last), last, paused_since: None }
    }

    /// Returns the beginning and the end of the period in which the stored times are checked: it has the
    /// length of a pause and ends at the start of the process. `None` once they are checked.
    fn unchecked_period(&self) -> Option<(Timestamp, Timestamp)> {
        self.unchecked.map(|(start, _)| (start.minus(self.pause), start))
    }

    /// Pauses if no audit event was stored for a day or more, and that silence ended in the period that
    /// [`Readings::unchecked_period`] returned: the clock may have jumped at its end. `silence` is its
    /// beginning and its end. Only the first call has an effect.
    fn compare_with_stored_times(&mut self, silence: Option<(Timestamp, Timestamp)>) {
        let Some((_, instant)) = self.unchecked.take() else { return };
        if let Some((last, next)) = silence
            && !self.pause.is_zero()
        {
            let silence = next.since(last);
            self.trusted = None;
            self.paused_since = Some(instant);
            tracing::warn!(
                hours = silence.as_secs() / 3_600,
                "No event was stored for {} h: the clock may have jumped forward; expired rows are not deleted for {} h",
                silence.as_secs() / 3_600,
                self.pause.as_secs_f64() / 3_600.0
            );
        }
    }

    /// Returns the time against which the age of rows is judged, or `None` during a pause. Logs the beginning
    /// and the end of a pause.
    fn deletion_time(&mut self) -> Option<Timestamp> {
        let seen = (self.clock.now(), self.clock.instant());
        let last = std::mem::replace(&mut self.last, seen);
        let from_trusted = self.trusted.map(|trusted| jump(trusted, seen));
        // Small jumps add up since the trusted reading. During a pause, that sum contains the jump that
        // caused the pause, so only a jump since the last reading counts.
        let jumped = jump(last, seen).max(match self.paused_since {
            Some(_) => Duration::ZERO,
            None => from_trusted.unwrap_or_default(),
        });
        if jumped >= JUMP_MIN && !self.pause.is_zero() {
            tracing::warn!(
                minutes = jumped.as_secs() / 60,
                "The clock jumped forward by {}; expired rows are not deleted for {} h, or until it is corrected",
                shown(jumped),
                self.pause.as_secs_f64() / 3_600.0
            );
            self.paused_since = Some(seen.1);
            return None;
        }
        let Some(since) = self.paused_since else { return Some(seen.0) };
        if from_trusted.is_some_and(|jumped| jumped < JUMP_MIN) {
            tracing::info!("The clock was corrected; expired rows are deleted again");
        } else if seen.1.duration_since(since) >= self.pause {
            tracing::info!("The pause after the jump of the clock is over; expired rows are deleted again");
            self.trusted = Some(seen);
        } else {
            return None;
        }
        self.paused_since = None;
        Some(seen.0)
    }
}

/// Writes a jump in minutes, or in hours if it is long.
fn shown(jump: Duration) -> String {
    match jump.as_secs() / 60 {
        minutes if minutes < 120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

/// Returns by how much the civil clock went further than the monotonic one between two readings; zero if it
/// went less far.
fn jump(from: Reading, to: Reading) -> Duration {
    to.0.since(from.0.plus(to.1.duration_since(from.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::with_warnings;

    const START: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);
    const MONTH: Duration = Duration::from_hours(30 * 24);

    fn readings(pause: Duration) -> (Clock, Readings) {
        let clock = Clock::manual(START);
        (clock.clone(), Readings::new(clock, pause))
    }

    #[test]
    fn deletion_pauses_after_a_jump_until_the_clock_is_corrected() {
        let (clock, mut readings) = readings(MONTH);
        assert_eq!(readings.deletion_time(), Some(START));
        clock.set(START.plus(MONTH));
        assert_eq!((readings.deletion_time(), readings.deletion_time()), (None, None));
        clock.set(START);
        assert_eq!(readings.deletion_time(), Some(START));
    }

    #[test]
    fn deletion_continues_after_the_pause() {
        let (clock, mut readings) = readings(Duration::from_nanos(1));
        clock.set(START.plus(MONTH));
        assert_eq!(readings.deletion_time(), None);
        assert_eq!(readings.deletion_time(), Some(START.plus(MONTH)));
        // The new time is trusted from now on.
        assert_eq!(readings.deletion_time(), Some(START.plus(MONTH)));
    }

    #[test]
    fn small_jumps_that_add_up_and_a_jump_in_a_pause_are_noticed() {
        let (clock, mut readings) = readings(MONTH);
        clock.set(START.plus(JUMP_MIN / 2));
        assert!(readings.deletion_time().is_some());
        clock.set(START.plus(JUMP_MIN + Duration::from_mins(1)));
        assert_eq!(readings.deletion_time(), None);
        let paused_since = readings.paused_since;
        clock.set(START.plus(MONTH));
        assert_eq!(readings.deletion_time(), None);
        assert!(readings.paused_since > paused_since);
    }

    #[test]
    fn a_start_after_a_day_without_events_pauses() {
        let silence = (START.minus(MONTH), START.minus(MONTH).plus(SILENCE_MIN));
        for (pause, silence, is_paused) in
            [(MONTH, None, false), (MONTH, Some(silence), true), (Duration::ZERO, Some(silence), false)]
        {
            let (_, mut readings) = readings(pause);
            readings.compare_with_stored_times(silence);
            assert_eq!(readings.deletion_time().is_none(), is_paused, "{pause:?} {silence:?}");
        }
    }

    #[tokio::test]
    async fn a_pause_is_said_with_its_length() {
        let ((), warnings) = with_warnings(async {
            let (clock, mut jumped) = readings(MONTH);
            // More than the least: the monotonic clock goes on meanwhile, which a jump does not contain.
            clock.set(START.plus(JUMP_MIN + Duration::from_secs(30)));
            assert_eq!(jumped.deletion_time(), None);
            let (_, mut silent) = readings(MONTH);
            silent.compare_with_stored_times(Some((START.minus(MONTH), START)));
        })
        .await;
        let [jump, silence] = warnings.as_slice() else { panic!("{warnings:?}") };
        let paused = "expired rows are not deleted for 720 h";
        assert!(jump.contains("The clock jumped forward by 60 min") && jump.contains(paused), "{jump}");
        assert!(silence.contains("No event was stored for 720 h") && silence.contains(paused), "{silence}");
    }

    #[test]
    fn a_jump_back_and_a_pause_of_zero_stop_nothing() {
        let (clock, mut readings) = readings(MONTH);
        clock.set(START.minus(MONTH));
        assert!(readings.deletion_time().is_some());
        let (clock, mut readings) = self::readings(Duration::ZERO);
        clock.set(START.plus(MONTH));
        assert!(readings.deletion_time().is_some());
    }
}
