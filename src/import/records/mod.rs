//! The records of imported rows in the store (`core_imported_user`).

mod find;
mod write;

use diesel::{AsChangeset, Insertable, Queryable, Selectable};

pub use self::{
    find::{Holder, ImportedRow},
    write::{ImportStep, WrittenUsers},
};
use super::candidate::SourceRow;
use crate::{
    database::columns::{TimestampColumn, UuidColumn},
    domain::{AuthToken, Email, PasswordHash, Timestamp, UserId},
    store::schema::core_imported_user,
};

/// A user to write, with the record of its source row.
#[derive(Clone)]
pub struct ImportedUser {
    /// The source row.
    pub source_row: SourceRow,
    /// The user's `auth_token`: that of the row, unless another row or user keeps it.
    pub auth_token: AuthToken,
    /// The username.
    pub username: String,
    /// The key by which the username is looked up.
    pub username_key: String,
    /// The email.
    pub email: Email,
    /// The password hash, or the text of an unusable password; `None` if the stored password
    /// stays.
    pub password: Option<PasswordHash>,
    /// True if the email is verified.
    pub is_verified: bool,
    /// `created_at` of the row, or the time that replaces it.
    pub created_at: Timestamp,
    /// `updated_at` of the row, or the time that replaces it.
    pub updated_at: Timestamp,
    /// SHA-256 of the source row without its password.
    pub row_digest: [u8; 32],
    /// SHA-256 of the row's password; keyed if the password is plaintext.
    pub password_digest: [u8; 32],
}

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = core_imported_user, primary_key(auth_token, source_id), treat_none_as_null = true)]
struct ImportedUserRow {
    auth_token: UuidColumn,
    source_id: i64,
    user_id: Option<i64>,
    is_left_out: bool,
    row_digest: Vec<u8>,
    password_digest: Vec<u8>,
    updated_at: TimestampColumn,
}

impl ImportedUserRow {
    fn of(user: &ImportedUser, id: Option<UserId>, written_at: Timestamp) -> Self {
        Self {
            auth_token: UuidColumn(*user.source_row.auth_token.as_uuid()),
            source_id: user.source_row.id,
            user_id: id.map(UserId::as_i64),
            is_left_out: id.is_none(),
            row_digest: user.row_digest.to_vec(),
            password_digest: user.password_digest.to_vec(),
            updated_at: TimestampColumn(written_at),
        }
    }
}
