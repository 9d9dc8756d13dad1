//! Reads the password hashes of all users, one page after the other.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use crate::{
    database::{DatabaseError, read},
    domain::{PasswordHash, UserId},
    store::{Store, schema::core_user},
};

impl Store {
    /// Returns at most `limit` password hashes, each with the id of its user, in the order of these ids,
    /// starting after `after`.
    pub async fn list_password_hashes(
        &self,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<(UserId, PasswordHash)>, DatabaseError> {
        let after = after.map_or(i64::MIN, UserId::as_i64);
        read!(&self.connections, connection => {
            let rows: Vec<(i64, String)> = core_user::table
                .filter(core_user::id.gt(after))
                .order(core_user::id)
                .limit(limit)
                .select((core_user::id, core_user::password))
                .load(connection)
                .await?;
            let hashes = rows.into_iter();
            Ok(hashes.map(|(id, hash)| (UserId::from_i64(id), PasswordHash::from_stored(hash))).collect())
        })
    }
}
