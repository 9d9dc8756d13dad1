//! Queries of `core_signing_key`.

use std::time::Duration;

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::audit::AuditStatements;
use crate::domain::{AuditEvent, Sealed, Timestamp};
use crate::{
    database::{DatabaseError, columns::TimestampColumn, read, write},
    store::{Store, schema::core_signing_key},
};

/// A stored key that signs access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSigningKey {
    /// The number of the key, from 1. It is unique, so of two instances that add the next key at the same
    /// time only one succeeds.
    pub generation: i32,
    /// The key id (`kid`) in the tokens.
    pub id: String,
    /// The seed of the private key, encrypted.
    pub sealed_seed: Sealed,
    /// The time when the key was created.
    pub created_at: Timestamp,
    /// The time from which the key signs. It signs until a later key starts to sign.
    pub signs_from: Timestamp,
    /// The time until which the key verifies tokens; `None` while there is no later key.
    pub verifies_until: Option<Timestamp>,
}

/// How far ahead of the clock the creation of a key may be. The clocks of instances differ by less.
const CREATED_AHEAD_MAX: Duration = Duration::from_hours(1);

impl StoredSigningKey {
    /// True if the key was created under a clock that was ahead of the one that shows `now`. One of the two
    /// is wrong, so the times of the key cannot be used.
    #[must_use]
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        self.created_at > now.plus(CREATED_AHEAD_MAX)
    }
}

/// What happens to the earlier keys when a new one is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierKeys {
    /// They verify tokens until this time. A key that already has an earlier such time keeps it. A later time
    /// was set by a clock that was ahead, and is replaced. A key that was created ahead of the clock does not
    /// change: perhaps the clock is behind now, and the key is in use when the clock is right again.
    VerifyUntil(Timestamp),
    /// They are deleted, so the tokens that they signed become invalid.
    Revoked,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = core_signing_key)]
struct SigningKeyRow {
    generation: i32,
    kid: String,
    sealed_seed: Vec<u8>,
    created_at: TimestampColumn,
    signs_from: TimestampColumn,
    verifies_until: Option<TimestampColumn>,
}

impl Store {
    /// Returns the keys that verify tokens after `now`, the latest first.
    pub async fn list_signing_keys(&self, now: Timestamp) -> Result<Vec<StoredSigningKey>, DatabaseError> {
        read!(&self.connections, connection => {
            let rows: Vec<SigningKeyRow> = core_signing_key::table
                .order(core_signing_key::generation.desc())
                .select(SigningKeyRow::as_select())
                .load(connection)
                .await?;
            let keys = rows.into_iter().map(StoredSigningKey::from);
            Ok(keys.filter(|key| key.verifies_until.is_none_or(|until| until > now)).collect())
        })
    }

    /// Adds a key, updates the earlier keys and records the event, if there is one. Changes nothing and
    /// returns false if a key of this generation already exists.
    pub async fn add_signing_key(
        &self,
        key: StoredSigningKey,
        earlier: EarlierKeys,
        event: Option<AuditEvent>,
    ) -> Result<bool, DatabaseError> {
        write!(&self.connections, connection, recorded => {
            let added = diesel::insert_into(core_signing_key::table)
                .values((
                    core_signing_key::generation.eq(key.generation),
                    core_signing_key::kid.eq(key.id),
                    core_signing_key::sealed_seed.eq(key.sealed_seed.as_bytes()),
                    core_signing_key::created_at.eq(TimestampColumn(key.created_at)),
                    core_signing_key::signs_from.eq(TimestampColumn(key.signs_from)),
                    core_signing_key::verifies_until.eq(key.verifies_until.map(TimestampColumn)),
                ))
                .on_conflict_do_nothing()
                .execute(connection)
                .await?;
            if added == 0 {
                return Ok(false);
            }
            let before = core_signing_key::table.filter(core_signing_key::generation.lt(key.generation));
            match earlier {
                EarlierKeys::Revoked => diesel::delete(before).execute(connection).await?,
                EarlierKeys::VerifyUntil(until) => {
                    let until = TimestampColumn(until);
                    let created_until = TimestampColumn(key.created_at.plus(CREATED_AHEAD_MAX));
                    let is_longer = core_signing_key::verifies_until.gt(until);
                    let earlier = before
                        .filter(core_signing_key::created_at.le(created_until))
                        .filter(core_signing_key::verifies_until.is_null().or(is_longer));
                    diesel::update(earlier)
                        .set(core_signing_key::verifies_until.eq(Some(until)))
                        .execute(connection)
                        .await?
                }
            };
            if let Some(event) = event {
                connection.record(event, recorded).await?;
            }
            Ok(true)
        })
    }
}

impl From<SigningKeyRow> for StoredSigningKey {
    fn from(row: SigningKeyRow) -> Self {
        Self {
            generation: row.generation,
            id: row.kid,
            sealed_seed: Sealed::from_bytes(row.sealed_seed),
            created_at: row.created_at.0,
            signs_from: row.signs_from.0,
            verifies_until: row.verifies_until.map(|until| until.0),
        }
    }
}
