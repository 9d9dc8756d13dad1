//! Queries of `core_throttle` and `core_known_address`. Attempts, and the addresses from which a user logged
//! in with the correct password, are stored in the database, so all instances share them.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable};
use diesel_async::RunQueryDsl;

use super::{
    audit::AuditStatements,
    throttle_subject::{ACCOUNT_PASSWORD, ACCOUNT_PASSWORD_AT, KnownAddress, Subject},
};
use crate::{
    domain::{AuditEvent, Email, Timestamp},
    store::{
        Store, StoreError,
        audit_log::RecordedEvents,
        columns::TimestampColumn,
        connection::{read, statements, write},
        schema::{core_known_address, core_throttle},
    },
};

/// The effects of a correct password on the counted attempts and the known addresses.
#[derive(Debug, Clone)]
pub struct CorrectPassword {
    /// The subject whose attempts are deleted.
    pub cleared: Subject,
    /// The subjects whose attempts are reduced by one.
    pub decremented: Vec<Subject>,
    /// The client address to record as known to the account, and the time until which it is known.
    pub known_address: Option<(KnownAddress, Timestamp)>,
    /// The audit event to record, if any.
    pub event: Option<AuditEvent>,
}

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

/// The result of counting an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The attempt is allowed.
    Admitted,
    /// The attempt is refused, and was not counted.
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

#[derive(Insertable)]
#[diesel(table_name = core_known_address)]
struct KnownAddressRow {
    account: Vec<u8>,
    address: Vec<u8>,
    expires_at: TimestampColumn,
}

impl KnownAddressRow {
    fn new(known: KnownAddress, until: Timestamp) -> Self {
        let (account, address) = (known.account.to_vec(), known.address.to_vec());
        Self { account, address, expires_at: TimestampColumn(until) }
    }
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
        /// Applies the effects of a correct password, within the transaction that the password authorizes.
        async fn credit_success(
            &mut self,
            password: CorrectPassword,
            recorded: &mut RecordedEvents,
        ) -> Result<(), StoreError> {
            diesel::delete(core_throttle::table.find(password.cleared.key())).execute(self).await?;
            for subject in password.decremented {
                let counted = core_throttle::table.find(subject.key()).filter(core_throttle::attempts.gt(0));
                diesel::update(counted)
                    .set(core_throttle::attempts.eq(core_throttle::attempts - 1))
                    .execute(self)
                    .await?;
            }
            if let Some((known, until)) = password.known_address {
                diesel::insert_into(core_known_address::table)
                    .values(KnownAddressRow::new(known, until))
                    .on_conflict((core_known_address::account, core_known_address::address))
                    .do_update()
                    .set(core_known_address::expires_at.eq(TimestampColumn(until)))
                    .execute(self)
                    .await?;
            }
            if let Some(event) = password.event {
                self.record(event, recorded).await?;
            }
            Ok(())
        }

        /// Deletes all counted password attempts for the account with this email, from all addresses. Returns
        /// the number of deleted rows.
        async fn delete_password_attempts(&mut self, email: &Email) -> Result<usize, StoreError> {
            let account = Subject::password_of(email).digest.to_vec();
            let of_account = core_throttle::table.find((ACCOUNT_PASSWORD, account.clone()));
            let of_account = diesel::delete(of_account).execute(self).await?;
            let addresses: Vec<Vec<u8>> = core_known_address::table
                .filter(core_known_address::account.eq(account))
                .select(core_known_address::address)
                .load(self)
                .await?;
            let at_known_addresses = core_throttle::table
                .filter(core_throttle::kind.eq(ACCOUNT_PASSWORD_AT))
                .filter(core_throttle::subject.eq_any(addresses));
            Ok(of_account + diesel::delete(at_known_addresses).execute(self).await?)
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
        decide: impl Fn(&[Option<Attempts>]) -> Result<Vec<Attempts>, Timestamp> + Send + 'static,
    ) -> Result<Counted, StoreError> {
        if let Err(until) = decide(&self.known_attempts(subjects.clone(), now).await?) {
            return Ok(Counted::Refused { until });
        }
        write!(&self.connections, connection => {
            let mut known = Vec::with_capacity(subjects.len());
            for subject in &subjects {
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
                    .get_result(connection)
                    .await?;
                known.push(Some(Attempts::from(row)).filter(|attempts| attempts.expires_at > now));
            }
            let attempts = match decide(&known) {
                Ok(attempts) => attempts,
                Err(until) => return Ok(Counted::Refused { until }),
            };
            for (subject, attempts) in subjects.iter().zip(attempts) {
                diesel::update(core_throttle::table.find(subject.key()))
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

    async fn known_attempts(
        &self,
        subjects: Vec<Subject>,
        now: Timestamp,
    ) -> Result<Vec<Option<Attempts>>, StoreError> {
        read!(&self.connections, connection => {
            let mut known = Vec::with_capacity(subjects.len());
            for subject in &subjects {
                let row: Option<AttemptsRow> = core_throttle::table
                    .find(subject.key())
                    .filter(core_throttle::expires_at.gt(TimestampColumn(now)))
                    .select((core_throttle::attempts, core_throttle::refused_until, core_throttle::expires_at))
                    .get_result(connection)
                    .await
                    .optional()?;
                known.push(row.map(Attempts::from));
            }
            Ok(known)
        })
    }

    /// True if the account's owner has logged in from this address and the record has not expired.
    pub async fn is_known_address(&self, known: KnownAddress, now: Timestamp) -> Result<bool, StoreError> {
        read!(&self.connections, connection => {
            let live = core_known_address::table
                .find((known.account.to_vec(), known.address.to_vec()))
                .filter(core_known_address::expires_at.gt(TimestampColumn(now)));
            Ok(diesel::select(diesel::dsl::exists(live)).get_result(connection).await?)
        })
    }

    /// Reduces or deletes the counted attempts after a correct password, and records the client address as
    /// known.
    pub async fn record_correct_password(&self, password: CorrectPassword) -> Result<(), StoreError> {
        write!(&self.connections, connection, recorded => {
            connection.credit_success(password, recorded).await?;
            Ok(())
        })
    }

    /// Deletes all counted password attempts for the account with this email, from all addresses. Records the
    /// event and returns true if there were any.
    pub async fn clear_password_attempts(
        &self,
        email: &Email,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let email = email.clone();
        write!(&self.connections, connection, recorded => {
            let had_attempts = connection.delete_password_attempts(&email).await? > 0;
            if had_attempts {
                connection.record(event, recorded).await?;
            }
            Ok(had_attempts)
        })
    }
}
