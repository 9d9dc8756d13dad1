//! Queries of `core_password_attempt`: the password attempts that are in progress.
//!
//! An attempt is reserved before its password is compared. While it is reserved, it counts in the limits of
//! its subjects, at all instances. Afterwards it is settled once: a wrong password counts as a failure of
//! each subject, a correct one clears failures, and an attempt without a comparison changes nothing. The
//! reservation of an instance that has died expires.

use std::time::Duration;

use diesel::{ExpressionMethods, Insertable, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    audit::AuditStatements,
    known_addresses::{KnownAddressStatements, LoginAddress},
    throttle::{Admission, Attempts, ThrottleStatements},
    throttle_subject::Subject,
};
use crate::{
    database::{
        DatabaseError,
        audit_log::RecordedEvents,
        columns::{TimestampColumn, UuidColumn},
        read, statements, write,
    },
    domain::{AuditEvent, Timestamp},
    store::{Store, schema::core_password_attempt},
};

/// Longest time from the expiry of an attempt to its settlement, which waits while the database is away. The
/// row of the attempt is kept for as long. If the row is gone earlier, the attempt was settled.
pub const SETTLEMENT_MAX: Duration = Duration::from_hours(1);

/// The failures of a subject, and its attempts in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The counted failures; `None` if there are none or they have expired.
    pub failures: Option<Attempts>,
    /// Number of attempts in progress.
    pub in_progress: u32,
}

/// An attempt to reserve.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// Identifies the attempt.
    pub id: Uuid,
    /// The subjects that the attempt counts for, of different kinds. Every attempt names them in the same
    /// order of kinds.
    pub subjects: Vec<Subject>,
    /// The time of the reservation.
    pub at: Timestamp,
    /// The time at which the reservation expires if it is not settled before.
    pub expires_at: Timestamp,
    /// A reservation that expires after this time was made under a wrong clock and does not count.
    pub latest_expiry: Timestamp,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The password was not compared.
    NotCompared,
    /// The password was compared and is wrong.
    Wrong {
        /// The time of the comparison.
        at: Timestamp,
    },
    /// The password was compared and is correct.
    Correct,
}

/// An attempt to settle.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Identifies the attempt.
    pub id: Uuid,
    /// The subjects of its reservation, in the same order.
    pub subjects: Vec<Subject>,
    /// The subjects whose failures a correct password clears.
    pub cleared: Vec<Subject>,
    /// The outcome.
    pub outcome: AttemptOutcome,
}

/// The effects of a correct password that begins a session.
#[derive(Debug, Clone)]
pub struct CorrectPassword {
    /// The attempt, which is settled as [`AttemptOutcome::Correct`].
    pub attempt: Uuid,
    /// The subjects whose failures are cleared.
    pub cleared: Vec<Subject>,
    /// The client address to record as known, and the time until which it is known.
    pub known_address: Option<(LoginAddress, Timestamp)>,
    /// The audit event to record.
    pub event: AuditEvent,
}

#[derive(Insertable)]
#[diesel(table_name = core_password_attempt)]
struct PasswordAttemptRow {
    attempt_id: UuidColumn,
    kind: &'static str,
    subject: Vec<u8>,
    expires_at: TimestampColumn,
}

impl Reservation {
    fn rows(&self) -> Vec<PasswordAttemptRow> {
        let row = |subject: &Subject| PasswordAttemptRow {
            attempt_id: UuidColumn(self.id),
            kind: subject.kind,
            subject: subject.digest.to_vec(),
            expires_at: TimestampColumn(self.expires_at),
        };
        self.subjects.iter().map(row).collect()
    }
}

statements! {
    /// Statements on attempts in progress that are part of larger transactions.
    pub(super) trait PasswordAttemptStatements {
        /// Returns the number of attempts of a subject that are in progress at `now`. A reservation that
        /// expires after `latest_expiry` was made under a wrong clock and does not count.
        async fn attempts_in_progress(
            &mut self,
            subject: &Subject,
            now: Timestamp,
            latest_expiry: Timestamp,
        ) -> Result<u32, DatabaseError> {
            let live = core_password_attempt::table
                .filter(core_password_attempt::kind.eq(subject.kind))
                .filter(core_password_attempt::subject.eq(subject.digest.to_vec()))
                .filter(core_password_attempt::expires_at.gt(TimestampColumn(now)))
                .filter(core_password_attempt::expires_at.le(TimestampColumn(latest_expiry)));
            let count: i64 = live.count().get_result(self).await?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        }

        /// Deletes the reservation of an attempt. Returns false if the attempt was settled before.
        async fn delete_reservation(&mut self, id: Uuid) -> Result<bool, DatabaseError> {
            let rows = core_password_attempt::table.filter(core_password_attempt::attempt_id.eq(UuidColumn(id)));
            Ok(diesel::delete(rows).execute(self).await? > 0)
        }

        /// Applies the effects of a correct password, within the transaction that opens the session.
        async fn apply_correct_password(
            &mut self,
            correct: CorrectPassword,
            recorded: &mut RecordedEvents,
        ) -> Result<(), DatabaseError> {
            self.delete_reservation(correct.attempt).await?;
            for subject in &correct.cleared {
                self.delete_attempts(subject).await?;
            }
            if let Some((address, until)) = correct.known_address {
                self.record_known_address(address, until).await?;
            }
            self.record(correct.event, recorded).await
        }
    }
}

impl Store {
    /// Reserves an attempt before its password is compared. `admit` receives the tally of each subject in the
    /// given order, and returns the time until which the attempt is refused, if it is.
    ///
    /// The reservation is one transaction, which locks the subjects in their order. Concurrent attempts, also
    /// those at other instances, are therefore admitted one after the other. An attempt that the stored
    /// tallies already refuse costs only reads.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer. If the attempt was reserved all the same, its
    /// reservation expires.
    pub async fn reserve_attempt(
        &self,
        reservation: Reservation,
        admit: impl Fn(&[Tally]) -> Result<(), Timestamp> + Clone + Send + 'static,
    ) -> Result<Admission, DatabaseError> {
        let (now, latest_expiry) = (reservation.at, reservation.latest_expiry);
        if let Err(until) = admit(&self.tallies(reservation.subjects.clone(), now, latest_expiry).await?) {
            return Ok(Admission::Refused { until });
        }
        write!(&self.connections, connection => {
            let mut tallies = Vec::with_capacity(reservation.subjects.len());
            for subject in &reservation.subjects {
                let failures = connection.lock_attempts(subject, now).await?;
                let in_progress = connection.attempts_in_progress(subject, now, latest_expiry).await?;
                tallies.push(Tally { failures, in_progress });
            }
            if let Err(until) = admit(&tallies) {
                return Ok(Admission::Refused { until });
            }
            for row in reservation.rows() {
                diesel::insert_into(core_password_attempt::table).values(row).execute(connection).await?;
            }
            Ok(Admission::Admitted)
        })
    }

    /// Returns the tally of each subject at `now`, in the given order and without a lock. A reservation that
    /// expires after `latest_expiry` was made under a wrong clock and does not count.
    pub async fn tallies(
        &self,
        subjects: Vec<Subject>,
        now: Timestamp,
        latest_expiry: Timestamp,
    ) -> Result<Vec<Tally>, DatabaseError> {
        read!(&self.connections, connection => {
            let mut tallies = Vec::with_capacity(subjects.len());
            for subject in &subjects {
                let failures = connection.find_attempts(subject, now).await?;
                let in_progress = connection.attempts_in_progress(subject, now, latest_expiry).await?;
                tallies.push(Tally { failures, in_progress });
            }
            Ok(tallies)
        })
    }

    /// Settles an attempt: deletes its reservation and applies its outcome. Changes nothing if the attempt
    /// was settled before, so a settlement whose result is unknown can be repeated. `count_failure` receives
    /// the counted failures of each subject and the time of the comparison. It returns the new failures, in
    /// the given order.
    pub async fn settle_attempt(
        &self,
        settlement: Settlement,
        count_failure: impl Fn(&[Option<Attempts>], Timestamp) -> Vec<Attempts> + Clone + Send + 'static,
    ) -> Result<(), DatabaseError> {
        write!(&self.connections, connection => {
            if !connection.delete_reservation(settlement.id).await? {
                return Ok(());
            }
            match settlement.outcome {
                AttemptOutcome::NotCompared => {}
                AttemptOutcome::Correct => {
                    for subject in &settlement.cleared {
                        connection.delete_attempts(subject).await?;
                    }
                }
                AttemptOutcome::Wrong { at } => {
                    let mut failures = Vec::with_capacity(settlement.subjects.len());
                    for subject in &settlement.subjects {
                        failures.push(connection.lock_attempts(subject, at).await?);
                    }
                    for (subject, attempts) in settlement.subjects.iter().zip(count_failure(&failures, at)) {
                        connection.write_attempts(subject, attempts).await?;
                    }
                }
            }
            Ok(())
        })
    }
}
