//! Queries of `core_throttle`: attempts are counted where all instances see them.

use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable};
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};

use super::{Store, StoreError, columns::TimestampColumn, connection::write, schema::core_throttle};
use crate::domain::{Email, Timestamp};

/// Whose attempts are counted, and at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    kind: &'static str,
    digest: [u8; 32],
}

impl Subject {
    /// Attempts at the password of the account with this email, whether there is one or not. Only a digest is kept: who mistypes
    /// an address leaves none behind.
    #[must_use]
    pub fn password_of(email: &Email) -> Self {
        Self { kind: "account-password", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Links that are asked for again for this address.
    #[must_use]
    pub fn resend_to(email: &Email) -> Self {
        Self { kind: "resend", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Attempts at any password.
    #[must_use]
    pub const fn any_password() -> Self {
        Self { kind: "any-password", digest: [0; 32] }
    }
}

/// What is known of a subject's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// How many were made.
    pub count: u32,
    /// Until when there may be no other.
    pub refused_until: Timestamp,
    /// From when on nothing of this counts any more.
    pub expires_at: Timestamp,
}

/// What came of counting an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It may be made.
    Admitted,
    /// It may not, and was not counted.
    Refused {
        /// When another may.
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

impl Store {
    /// Counts one attempt of each subject, before it is made: `decide` gets what is known of each, in their order, nothing when it
    /// has expired, and gives what is known of each from now on, or until when the attempt is refused.
    ///
    /// One transaction, in which the subjects are locked in their order: attempts made at the same time, by other instances too,
    /// are counted one after the other.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; it is unknown then whether the attempt was counted.
    pub async fn count_attempt<const N: usize>(
        &self,
        subjects: [Subject; N],
        now: Timestamp,
        decide: impl FnOnce([Option<Attempts>; N]) -> Result<[Attempts; N], Timestamp> + Send + 'static,
    ) -> Result<Counted, StoreError> {
        write!(&self.connections, connection => {
            let mut known = [None; N];
            for (subject, known) in subjects.iter().zip(&mut known) {
                // A row that is there is written too, since that locks it on both engines.
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
                    .get_result(connection)
                    .await?;
                *known = Some(Attempts::from(row)).filter(|attempts| attempts.expires_at > now);
            }
            let attempts = match decide(known) {
                Ok(attempts) => attempts,
                Err(until) => return Ok(Counted::Refused { until }),
            };
            for (subject, attempts) in subjects.iter().zip(attempts) {
                diesel::update(core_throttle::table.find((subject.kind, subject.digest.to_vec())))
                    .set((
                        core_throttle::attempts.eq(i32::try_from(attempts.count).unwrap_or(i32::MAX)),
                        core_throttle::refused_until.eq(TimestampColumn(attempts.refused_until)),
                        core_throttle::expires_at.eq(TimestampColumn(attempts.expires_at)),
                    ))
                    .execute(connection)
                    .await?;
            }
            Ok(Counted::Admitted)
        })
    }

    /// Forgets all attempts of `of`, and one of `one_of`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forgive_attempts(&self, of: Subject, one_of: Subject) -> Result<(), StoreError> {
        write!(&self.connections, connection => {
            diesel::delete(core_throttle::table.find((of.kind, of.digest.to_vec()))).execute(connection).await?;
            let counted = core_throttle::table
                .find((one_of.kind, one_of.digest.to_vec()))
                .filter(core_throttle::attempts.gt(0));
            diesel::update(counted)
                .set(core_throttle::attempts.eq(core_throttle::attempts - 1))
                .execute(connection)
                .await?;
            Ok(())
        })
    }

    /// Forgets all attempts of a subject; gives whether there were any.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forget_attempts(&self, of: Subject) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            let row = core_throttle::table.find((of.kind, of.digest.to_vec()));
            Ok(diesel::delete(row).execute(connection).await? > 0)
        })
    }
}
