//! The encrypted values of all tables: which keys they name, and their replacement when a key is replaced.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable,
    SelectableHelper, sql_query,
    sql_types::{BigInt, Binary},
};
use diesel_async::RunQueryDsl;

use crate::{
    database::{DatabaseError, read, write},
    domain::Sealed,
    store::{
        Store,
        schema::{core_mail_outbox, core_signing_key},
    },
};

/// Counts the encrypted values by their first nine bytes: the version and the id of the key. A mail that is
/// finished has no token.
const COUNT: &str = "SELECT substr(sealed_token, 1, 9) AS header, count(*) AS number FROM core_mail_outbox \
    WHERE next_attempt_at IS NOT NULL AND sealed_token IS NOT NULL GROUP BY 1 \
    UNION ALL SELECT substr(sealed_seed, 1, 9) AS header, count(*) AS number FROM core_signing_key GROUP BY 1";

/// Number of encrypted values of one table that begin with the same bytes.
#[derive(Debug, Clone, QueryableByName)]
pub struct SealedCount {
    /// The first nine bytes.
    #[diesel(sql_type = Binary)]
    pub header: Vec<u8>,
    /// Number of values.
    #[diesel(sql_type = BigInt)]
    pub number: i64,
}

/// The encrypted token of a mail that is not yet sent.
#[derive(Debug, Clone)]
pub struct SealedToken {
    /// The id of the row.
    pub id: i64,
    /// The Message-ID of the mail.
    pub message_id: String,
    /// The address that the mail is sent to.
    pub recipient: String,
    /// The token, encrypted.
    pub sealed: Sealed,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = core_mail_outbox)]
struct TokenRow {
    id: i64,
    message_id: String,
    recipient: String,
    sealed_token: Option<Vec<u8>>,
}

impl Store {
    /// Counts the encrypted values by their first bytes.
    pub async fn count_sealed_values(&self) -> Result<Vec<SealedCount>, DatabaseError> {
        read!(&self.connections, connection => { Ok(sql_query(COUNT).load(connection).await?) })
    }

    /// Returns at most `limit` encrypted tokens of mails after the row `after`, in the order of their ids.
    pub async fn list_sealed_tokens(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Vec<SealedToken>, DatabaseError> {
        let rows: Vec<TokenRow> = read!(&self.connections, connection => {
            Ok(core_mail_outbox::table
                .filter(core_mail_outbox::id.gt(after).and(core_mail_outbox::sealed_token.is_not_null()))
                .order(core_mail_outbox::id)
                .limit(limit)
                .select(TokenRow::as_select())
                .load(connection)
                .await?)
        })?;
        let token = |row: TokenRow| {
            let sealed = Sealed::from_bytes(row.sealed_token?);
            Some(SealedToken { id: row.id, message_id: row.message_id, recipient: row.recipient, sealed })
        };
        Ok(rows.into_iter().filter_map(token).collect())
    }

    /// Replaces encrypted tokens. A token that was changed or erased meanwhile stays as it is.
    pub async fn replace_sealed_tokens(
        &self,
        replaced: Vec<(SealedToken, Sealed)>,
    ) -> Result<(), DatabaseError> {
        write!(&self.connections, connection => {
            for (token, sealed) in &replaced {
                let unchanged = core_mail_outbox::table
                    .find(token.id)
                    .filter(core_mail_outbox::sealed_token.eq(token.sealed.as_bytes()));
                diesel::update(unchanged)
                    .set(core_mail_outbox::sealed_token.eq(sealed.as_bytes()))
                    .execute(connection)
                    .await?;
            }
            Ok(())
        })
    }

    /// Replaces the encrypted seed of the signing key `id`, unless it was changed meanwhile.
    pub async fn replace_sealed_seed(
        &self,
        id: String,
        earlier: Sealed,
        sealed: Sealed,
    ) -> Result<(), DatabaseError> {
        write!(&self.connections, connection => {
            let unchanged = core_signing_key::table
                .find(&id)
                .filter(core_signing_key::sealed_seed.eq(earlier.as_bytes()));
            diesel::update(unchanged)
                .set(core_signing_key::sealed_seed.eq(sealed.as_bytes()))
                .execute(connection)
                .await?;
            Ok(())
        })
    }
}
