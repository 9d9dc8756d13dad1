//! Queries of `core_throttle` and `core_known_address`: attempts are counted where all instances see them, and so are the
//! addresses from which the right password came.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable};
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};

use super::{
    Store, StoreError,
    audit::record,
    columns::TimestampColumn,
    connection::{read, write},
    schema::{core_known_address, core_throttle},
};
use crate::domain::{AuditEvent, ClientAddress, Email, Timestamp};

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
        Self { kind: ACCOUNTS, digest: Sha256::digest(email.as_str()).into() }
    }

    /// The same from an address that is known as its owner's, counted apart: guesses from elsewhere do not count there.
    #[must_use]
    pub const fn password_at(known: &KnownAddress) -> Self {
        Self { kind: OWNERS, digest: known.address }
    }

    /// Links that are asked for again for this mailbox.
    #[must_use]
    pub fn resends_to(email: &Email) -> Self {
        Self { kind: "resends-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Links to choose a new password that are asked for, for this mailbox.
    #[must_use]
    pub fn resets_to(email: &Email) -> Self {
        Self { kind: "resets-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Mails to this mailbox that only tell of something that somebody else did. Apart from those that its owner asks for, so that nobody
    /// can use those up.
    #[must_use]
    pub fn notices_to(email: &Email) -> Self {
        Self { kind: "notices-to", digest: Sha256::digest(email.as_str()).into() }
    }

    /// Attempts at any password from this address.
    #[must_use]
    pub fn passwords_from(client: ClientAddress) -> Self {
        Self { kind: "passwords-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Registrations from this address.
    #[must_use]
    pub fn registrations_from(client: ClientAddress) -> Self {
        Self { kind: "registrations-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Links that are asked for again from this address.
    #[must_use]
    pub fn resends_from(client: ClientAddress) -> Self {
        Self { kind: "resends-from", digest: Sha256::digest(client.octets()).into() }
    }

    /// Attempts at any password.
    #[must_use]
    pub const fn any_password() -> Self {
        Self { kind: "any-password", digest: [0; 32] }
    }

    pub(super) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The key of its row.
    pub(super) fn key(&self) -> (&'static str, Vec<u8>) {
        (self.kind, self.digest.to_vec())
    }
}

/// [`Subject::password_of`]
pub(super) const ACCOUNTS: &str = "account-password";

/// [`Subject::password_at`]
pub(super) const OWNERS: &str = "account-password-at";

/// An account and an address, as `core_known_address` keeps them when they belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAddress {
    account: [u8; 32],
    address: [u8; 32],
}

impl KnownAddress {
    /// Of the account with this email.
    #[must_use]
    pub fn new(email: &Email, client: ClientAddress) -> Self {
        let account = Subject::password_of(email).digest;
        // The digest of an address alone could be found by trying all there are.
        let address = Sha256::new().chain_update(account).chain_update(client.octets()).finalize();
        Self { account, address: address.into() }
    }
}

/// A right password, and what it takes back.
#[derive(Debug, Clone)]
pub struct RightPassword {
    /// Whose attempts are all forgotten.
    pub of: Subject,
    /// Of whose attempts one is forgotten.
    pub one_of: Vec<Subject>,
    /// The address it came from, known as the owner's until then.
    pub from: Option<(KnownAddress, Timestamp)>,
    /// What is written down of it, if anything is.
    pub event: Option<AuditEvent>,
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

#[derive(Insertable)]
#[diesel(table_name = core_known_address)]
pub(super) struct KnownAddressRow {
    account: Vec<u8>,
    address: Vec<u8>,
    expires_at: TimestampColumn,
}

impl KnownAddressRow {
    pub(super) fn new(known: KnownAddress, until: Timestamp) -> Self {
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

/// Takes back what a right password takes back, in the transaction that it leads to.
macro_rules! take_back {
    ($connection:expr, $right:expr) => {{
        use $crate::store::{
            columns::TimestampColumn,
            schema::{core_known_address, core_throttle},
            throttle::KnownAddressRow,
        };
        let right: $crate::store::RightPassword = $right;
        diesel::delete(core_throttle::table.find(right.of.key())).execute($connection).await?;
        for subject in right.one_of {
            let counted = core_throttle::table.find(subject.key()).filter(core_throttle::attempts.gt(0));
            diesel::update(counted)
                .set(core_throttle::attempts.eq(core_throttle::attempts - 1))
                .execute($connection)
                .await?;
        }
        if let Some((known, until)) = right.from {
            let row = KnownAddressRow::new(known, until);
            diesel::insert_into(core_known_address::table)
                .values(row)
                .on_conflict((core_known_address::account, core_known_address::address))
                .do_update()
                .set(core_known_address::expires_at.eq(TimestampColumn(until)))
                .execute($connection)
                .await?;
        }
        if let Some(event) = right.event {
            $crate::store::audit::record!($connection, event);
        }
    }};
}
pub(super) use take_back;

/// Forgets all attempts at the password of the account with this email, from everywhere; gives how many rows told of them.
macro_rules! forget_attempts {
    ($connection:expr, $email:expr) => {{
        use $crate::store::{
            schema::{core_known_address, core_throttle},
            throttle::{ACCOUNTS, OWNERS, Subject},
        };
        let account = Subject::password_of($email).digest().to_vec();
        let elsewhere = core_throttle::table.find((ACCOUNTS, account.clone()));
        let elsewhere = diesel::delete(elsewhere).execute($connection).await?;
        let addresses: Vec<Vec<u8>> = core_known_address::table
            .filter(core_known_address::account.eq(account))
            .select(core_known_address::address)
            .load($connection)
            .await?;
        let at_owners = core_throttle::table
            .filter(core_throttle::kind.eq(OWNERS))
            .filter(core_throttle::subject.eq_any(addresses));
        elsewhere + diesel::delete(at_owners).execute($connection).await?
    }};
}
pub(super) use forget_attempts;

impl Store {
    /// Counts one attempt of each subject, before it is made: `decide` gets what is known of each, in their order, nothing when it
    /// has expired, and gives what is known of each from now on, or until when the attempt is refused.
    ///
    /// One transaction, in which the subjects are locked in their order: attempts made at the same time, by other instances too,
    /// are counted one after the other. An attempt that is refused already writes nothing: a flood of them costs reads only.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; it is unknown then whether the attempt was counted.
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

    /// Whether the account's owner has logged in from there and is still known to.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn knows_address(&self, known: KnownAddress, now: Timestamp) -> Result<bool, StoreError> {
        read!(&self.connections, connection => {
            let live = core_known_address::table
                .find((known.account.to_vec(), known.address.to_vec()))
                .filter(core_known_address::expires_at.gt(TimestampColumn(now)));
            Ok(diesel::select(diesel::dsl::exists(live)).get_result(connection).await?)
        })
    }

    /// Forgets the attempts that a right password takes back, and remembers where it came from.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn note_right_password(&self, right: RightPassword) -> Result<(), StoreError> {
        write!(&self.connections, connection => {
            take_back!(connection, right);
            Ok(())
        })
    }

    /// Forgets all attempts at the password of the account with this email, from everywhere; gives whether there were any, and
    /// writes the event if so.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forget_password_attempts(
        &self,
        email: &Email,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let email = email.clone();
        write!(&self.connections, connection => {
            let had_attempts = forget_attempts!(connection, &email) > 0;
            if had_attempts {
                record!(connection, event);
            }
            Ok(had_attempts)
        })
    }
}
