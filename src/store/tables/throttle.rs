//! Queries of `core_throttle`. The counts are stored in the database, so all instances share them.

use std::time::Duration;

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    known_addresses::KnownAddressStatements,
    throttle_subject::{ACCOUNT_PASSWORD_AT_ADDRESS, Subject},
};
use crate::{
    database::{DatabaseError, columns::TimestampColumn, read, statements, write},
    domain::{AuditEvent, Timestamp, User},
    store::{Store, schema::core_throttle},
};

/// The counted attempts of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Number of attempts.
    pub count: u32,
    /// The time before which no further attempt is allowed.
    pub refused_until: Timestamp,
    /// The time from which the row has no effect.
    pub expires_at: Timestamp,
}

/// Maximum difference between the clocks of two instances, or between the times of two calls that wait for
/// the same row.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_mins(1);

impl Attempts {
    /// Returns the attempts of the current window of this length. A window that ends later than one that
    /// begins now was set by a wrong clock, or under a setting that was greater, so it is ignored. The
    /// tolerance is [`CLOCK_DIFFERENCE_MAX`].
    #[must_use]
    pub fn in_window(before: Option<Self>, length: Duration, now: Timestamp) -> Option<Self> {
        let latest = now.plus(length).plus(CLOCK_DIFFERENCE_MAX);
        before.filter(|before| before.expires_at <= latest)
    }

    /// Returns the attempts of the current window of this length with one more now, or a new window if there
    /// is none. `before` must not have expired: `lock_attempts` returns no expired attempts. The new
    /// `refused_until` is `now` and refuses nothing: a full window refuses until it expires. A caller that
    /// requires a pause between attempts replaces it.
    #[must_use]
    pub fn with_one_more_in_window(before: Option<Self>, length: Duration, now: Timestamp) -> Self {
        let window = Self::in_window(before, length, now);
        let expires_at = window.map_or(now.plus(length), |window| window.expires_at);
        let count = window.map_or(0, |window| window.count).saturating_add(1);
        Self { count, refused_until: now, expires_at }
    }
}

/// The decision about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The attempt is allowed.
    Admitted,
    /// The attempt is refused. It was neither counted nor reserved.
    Refused {
        /// The time when another attempt is allowed.
        until: Timestamp,
    },
}

#[derive(Insertable)]
#[diesel(table_name = core_throttle)]
struct NewThrottleRow {
    kind: &'static str,
    subject: Vec<u8>,
    attempts: i32,
    refused_until: TimestampColumn,
    expires_at: TimestampColumn,
}

#[derive(Queryable)]
struct AttemptsRow {
    attempts: i32,
    refused_until: TimestampColumn,
    expires_at: TimestampColumn,
}

impl From<AttemptsRow> for Attempts {
    fn from(row: AttemptsRow) -> Self {
        Self {
            count: row.attempts.unsigned_abs(),
            refused_until: row.refused_until.0,
            expires_at: row.expires_at.0,
        }
    }
}

statements! {
    /// Statements on counted attempts that are part of larger transactions.
    pub(super) trait ThrottleStatements {
        /// Locks the row of a subject, in which its attempts are counted, and returns them; `None` if there
        /// are none or they have expired. Every transaction locks its subjects in the same order, so that two
        /// transactions cannot deadlock.
        async fn lock_attempts(&mut self, subject: &Subject, now: Timestamp) -> Result<Option<Attempts>, DatabaseError> {
            // An existing row is written too, because that locks it on both engines.
            let row: AttemptsRow = diesel::insert_into(core_throttle::table)
                .values(NewThrottleRow {
                    kind: subject.kind,
                    subject: subject.digest.to_vec(),
                    attempts: 0,
                    refused_until: TimestampColumn(now),
                    expires_at: TimestampColumn(now),
                })
                .on_conflict((core_throttle::kind, core_throttle::subject))
                .do_update()
                .set(core_throttle::attempts.eq(core_throttle::attempts))
                .returning((core_throttle::attempts, core_throttle::refused_until, core_throttle::expires_at))
                .get_result(self)
                .await?;
            Ok(Some(Attempts::from(row)).filter(|attempts| attempts.expires_at > now))
        }

        /// Replaces the counted attempts of a subject whose row is locked.
        async fn write_attempts(&mut self, subject: &Subject, attempts: Attempts) -> Result<(), DatabaseError> {
            diesel::update(core_throttle::table.find(subject.key()))
                .set((
                    core_throttle::attempts.eq(i32::try_from(attempts.count).unwrap_or(i32::MAX)),
                    core_throttle::refused_until.eq(TimestampColumn(attempts.refused_until)),
                    core_throttle::expires_at.eq(TimestampColumn(attempts.expires_at)),
                ))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Returns the counted attempts of a subject without a lock; `None` as in
        /// [`ThrottleStatements::lock_attempts`].
        async fn find_attempts(&mut self, subject: &Subject, now: Timestamp) -> Result<Option<Attempts>, DatabaseError> {
            let row: Option<AttemptsRow> = core_throttle::table
                .find(subject.key())
                .filter(core_throttle::expires_at.gt(TimestampColumn(now)))
                .select((core_throttle::attempts, core_throttle::refused_until, core_throttle::expires_at))
                .get_result(self)
                .await
                .optional()?;
            Ok(row.map(Attempts::from))
        }

        /// Deletes the counted attempts of a subject. Returns the number of deleted rows. A row that counts
        /// no attempt stays, so the number is 0 if there were none.
        async fn delete_attempts(&mut self, subject: &Subject) -> Result<usize, DatabaseError> {
            let counted = core_throttle::table.find(subject.key()).filter(core_throttle::attempts.gt(0));
            Ok(diesel::delete(counted).execute(self).await?)
        }

        /// Deletes the failed password attempts for this user's account, from all addresses. Returns the
        /// number of deleted rows.
        async fn delete_password_attempts(&mut self, user: &User) -> Result<usize, DatabaseError> {
            let of_account = self.delete_attempts(&Subject::account_password(&user.email)).await?;
            let at_known_addresses =
                self.delete_attempts(&Subject::account_password_at_known_addresses(user.auth_token)).await?;
            let while_acting = self.delete_attempts(&Subject::acting_user_password(user.auth_token)).await?;
            // Rows without attempts stay, as in `delete_attempts`.
            let at_each_known_address = core_throttle::table
                .filter(core_throttle::kind.eq(ACCOUNT_PASSWORD_AT_ADDRESS))
                .filter(core_throttle::attempts.gt(0))
                .filter(core_throttle::subject.eq_any(self.address_digests(user.id).await?));
            Ok(of_account + at_known_addresses + while_acting + diesel::delete(at_each_known_address).execute(self).await?)
        }
    }
}

impl Store {
    /// Counts an attempt for each subject, before the attempt is made. `decide` receives the counted attempts
    /// of each subject in the given order, `None` if there are none or they have expired. It returns the new
    /// counts in the same order, or the time until which the attempt is refused.
    ///
    /// The counting is one transaction, which locks the subjects in their order. Concurrent attempts, also
    /// those at other instances, are therefore counted one after the other. An attempt that the stored counts
    /// already refuse is detected by a read and writes nothing, so a flood of such attempts costs only reads.
    pub async fn count_attempt(
        &self,
        subjects: Vec<Subject>,
        now: Timestamp,
        decide: impl Fn(&[Option<Attempts>]) -> Result<Vec<Attempts>, Timestamp> + Clone + Send + 'static,
    ) -> Result<Admission, DatabaseError> {
        if let Err(until) = decide(&self.find_counted_before(subjects.clone(), now).await?) {
            return Ok(Admission::Refused { until });
        }
        write!(&self.connections, connection => {
            let mut counted_before = Vec::with_capacity(subjects.len());
            for subject in &subjects {
                counted_before.push(connection.lock_attempts(subject, now).await?);
            }
            let attempts = match decide(&counted_before) {
                Ok(attempts) => attempts,
                Err(until) => return Ok(Admission::Refused { until }),
            };
            for (subject, attempts) in subjects.iter().zip(attempts) {
                connection.write_attempts(subject, attempts).await?;
            }
            Ok(Admission::Admitted)
        })
    }

    /// Reduces the counted attempts of each subject by one, for an attempt that was counted and not made.
    /// Locks the subjects in their order, like [`Store::count_attempt`].
    pub async fn uncount_attempt(&self, subjects: Vec<Subject>) -> Result<(), DatabaseError> {
        write!(&self.connections, connection => {
            for subject in subjects {
                let counted = core_throttle::table.find(subject.key()).filter(core_throttle::attempts.gt(0));
                diesel::update(counted)
                    .set(core_throttle::attempts.eq(core_throttle::attempts - 1))
                    .execute(connection)
                    .await?;
            }
            Ok(())
        })
    }

    /// Returns the counted attempts of a subject, without a lock; `None` if there are none or they have
    /// expired.
    pub async fn find_counted(
        &self,
        subject: Subject,
        now: Timestamp,
    ) -> Result<Option<Attempts>, DatabaseError> {
        Ok(self.find_counted_before(vec![subject], now).await?.pop().flatten())
    }

    /// Returns the counted attempts of each subject in the given order, without a lock.
    async fn find_counted_before(
        &self,
        subjects: Vec<Subject>,
        now: Timestamp,
    ) -> Result<Vec<Option<Attempts>>, DatabaseError> {
        read!(&self.connections, connection => {
            let mut counted_before = Vec::with_capacity(subjects.len());
            for subject in &subjects {
                counted_before.push(connection.find_attempts(subject, now).await?);
            }
            Ok(counted_before)
        })
    }

    /// Deletes the failed password attempts for this user's account, from all addresses. Records the event
    /// and returns true if there were any.
    pub async fn clear_password_attempts(
        &self,
        user: &User,
        event: AuditEvent,
    ) -> Result<bool, DatabaseError> {
        let user = user.clone();
        write!(&self.connections, connection, recorded => {
            let had_attempts = connection.delete_password_attempts(&user).await? > 0;
            if had_attempts {
                connection.record(event, recorded).await?;
            }
            Ok(had_attempts)
        })
    }
}
