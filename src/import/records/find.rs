//! Finds the records of imported rows, and the users that are in conflict with rows.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{super::candidate::SourceRow, ImportedUserRow};
use crate::{
    database::{DatabaseError, columns::UuidColumn, read},
    domain::{AuthToken, PasswordHash, Timestamp, User},
    store::{
        Store,
        schema::{core_imported_user, core_user},
        tables::users::UserRow,
    },
};

/// The record of a source row that an earlier import processed.
#[derive(Clone)]
pub struct ImportedRow {
    /// The source row.
    pub source_row: SourceRow,
    /// The user that the row became, in its current state, with its password hash; `None` if the row was left
    /// out or the user has been deleted.
    pub user: Option<(User, PasswordHash)>,
    /// True if the row was left out because the operator chose another row with the same email.
    pub is_left_out: bool,
    /// SHA-256 of the source row without its password.
    pub row_digest: [u8; 32],
    /// SHA-256 of the row's password; keyed if the password is plaintext.
    pub password_digest: [u8; 32],
    /// `updated_at` of the user when the row was recorded.
    pub written_at: Timestamp,
}

impl ImportedRow {
    /// True if the user has changed in this service since the row was recorded.
    #[must_use]
    pub fn is_changed_since_import(&self) -> bool {
        self.user.as_ref().is_some_and(|(user, _)| user.updated_at != self.written_at)
    }
}

/// An existing user who has the `auth_token`, email or username of a source row.
#[derive(Clone)]
pub struct Holder {
    /// The user.
    pub user: User,
    /// The password hash of the user.
    pub password: PasswordHash,
    /// The source row that the user came from, if the user was imported.
    pub source_row: Option<SourceRow>,
}

/// A user with the password hash, and with the `auth_token` and the id of the source row that it was imported
/// from.
type HolderRow = (UserRow, String, Option<UuidColumn>, Option<i64>);

/// The values of one column by which users are looked up.
enum HolderField {
    AuthToken(Vec<UuidColumn>),
    Email(Vec<String>),
    Username(Vec<String>),
    UsernameKey(Vec<String>),
}

impl Store {
    /// Returns the records of the source rows with these `auth_token`s. Rows without a record are omitted.
    ///
    /// # Errors
    /// [`DatabaseError`]; `Corrupt` if a stored digest does not have 32 bytes.
    pub async fn find_imported(&self, tokens: &[AuthToken]) -> Result<Vec<ImportedRow>, DatabaseError> {
        let tokens: Vec<UuidColumn> = tokens.iter().map(|token| UuidColumn(*token.as_uuid())).collect();
        read!(&self.connections, connection => {
            let rows: Vec<(ImportedUserRow, Option<UserRow>, Option<String>)> = core_imported_user::table
                .left_join(core_user::table)
                .filter(core_imported_user::auth_token.eq_any(tokens))
                .select((ImportedUserRow::as_select(), Option::<UserRow>::as_select(), core_user::password.nullable()))
                .load(connection)
                .await?;
            rows.into_iter().map(imported_row).collect()
        })
    }

    /// Returns recorded rows that have a user, ordered by `auth_token` and id. Starts after `after` and
    /// returns at most `limit` rows.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn list_imported(
        &self,
        after: Option<SourceRow>,
        limit: i64,
    ) -> Result<Vec<SourceRow>, DatabaseError> {
        use core_imported_user as imported;
        read!(&self.connections, connection => {
            let mut query = imported::table
                .filter(imported::user_id.is_not_null())
                .order((imported::auth_token, imported::source_id))
                .limit(limit)
                .select((imported::auth_token, imported::source_id))
                .into_boxed();
            if let Some(after) = after {
                let (token, id) = (UuidColumn(*after.auth_token.as_uuid()), after.id);
                query = query.filter(
                    imported::auth_token.gt(token).or(imported::auth_token.eq(token).and(imported::source_id.gt(id))),
                );
            }
            let rows: Vec<(UuidColumn, i64)> = query.load(connection).await?;
            Ok(rows.into_iter().map(source_row).collect())
        })
    }

    /// Returns every user who has one of these `auth_token`s, emails, usernames or username keys, each user
    /// once.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn find_holders(
        &self,
        tokens: &[AuthToken],
        emails: Vec<String>,
        usernames: Vec<String>,
        keys: Vec<String>,
    ) -> Result<Vec<Holder>, DatabaseError> {
        let tokens: Vec<UuidColumn> = tokens.iter().map(|token| UuidColumn(*token.as_uuid())).collect();
        // PostgreSQL rejects a text with NUL, so no stored value contains one; such texts are removed from
        // the query.
        let [emails, usernames, keys] = [emails, usernames, keys].map(|mut texts| {
            texts.retain(|text: &String| !text.contains('\0'));
            texts
        });
        read!(&self.connections, connection => {
            // One query for each column, so that each uses its index. For one query with all conditions,
            // PostgreSQL would scan the whole table.
            let conditions = [
                HolderField::AuthToken(tokens),
                HolderField::Email(emails),
                HolderField::Username(usernames),
                HolderField::UsernameKey(keys),
            ];
            let mut holders: Vec<HolderRow> = Vec::new();
            for condition in conditions {
                let query = core_user::table
                    .left_join(core_imported_user::table)
                    .select((
                        UserRow::as_select(),
                        core_user::password,
                        core_imported_user::auth_token.nullable(),
                        core_imported_user::source_id.nullable(),
                    ))
                    .into_boxed();
                let query = match condition {
                    HolderField::AuthToken(tokens) => query.filter(core_user::auth_token.eq_any(tokens)),
                    HolderField::Email(emails) => query.filter(core_user::email.eq_any(emails)),
                    HolderField::Username(usernames) => query.filter(core_user::username.eq_any(usernames)),
                    HolderField::UsernameKey(keys) => query.filter(core_user::username_key.eq_any(keys)),
                };
                holders.extend(query.load::<HolderRow>(connection).await?);
            }
            holders.sort_by_key(|(user, ..)| user.id());
            holders.dedup_by_key(|(user, ..)| user.id());
            let holder = |(user, password, token, id): HolderRow| Holder {
                user: user.into(),
                password: PasswordHash::from_stored(password),
                source_row: token.zip(id).map(source_row),
            };
            Ok(holders.into_iter().map(holder).collect())
        })
    }
}

fn source_row((token, id): (UuidColumn, i64)) -> SourceRow {
    SourceRow { auth_token: AuthToken::from_uuid(token.0), id }
}

/// Converts a record with its user and the password hash.
fn imported_row(
    (row, user, password): (ImportedUserRow, Option<UserRow>, Option<String>),
) -> Result<ImportedRow, DatabaseError> {
    let digest = |bytes: Vec<u8>, column| {
        bytes.try_into().map_err(|_| DatabaseError::Corrupt { table: "core_imported_user", column })
    };
    Ok(ImportedRow {
        source_row: source_row((row.auth_token, row.source_id)),
        user: user.zip(password).map(|(user, hash)| (user.into(), PasswordHash::from_stored(hash))),
        is_left_out: row.is_left_out,
        row_digest: digest(row.row_digest, "row_digest")?,
        password_digest: digest(row.password_digest, "password_digest")?,
        written_at: row.updated_at.0,
    })
}
