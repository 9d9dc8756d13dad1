//! Reads all users of a store in one snapshot, for an export to Django.

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;

use crate::{
    database::{
        DatabaseError, DatabaseOptions,
        session::{Session, on_session},
    },
    django::DjangoUser,
    domain::{PasswordHash, User},
    store::{schema::core_user, tables::users::UserRow},
};

/// Number of users that are read together.
const USERS_PER_READ: i64 = 500;

/// A snapshot of a store with the schema of this release.
pub struct StoreReader {
    session: Session,
}

impl StoreReader {
    /// Connects and starts the snapshot.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer. The same applies to the other methods.
    pub async fn begin(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let mut session = Session::read_only(options).await?;
        session.begin_snapshot().await?;
        Ok(Self { session })
    }

    /// Returns the number of users.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub async fn count_users(&mut self) -> Result<u64, DatabaseError> {
        let count: i64 = on_session!(&mut self.session, connection => {
            core_user::table.count().get_result(connection).await?
        });
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Returns the next users in the order of their ids, after `after`; at most 500.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub async fn users(&mut self, after: Option<i64>) -> Result<Vec<DjangoUser>, DatabaseError> {
        let rows: Vec<(UserRow, String)> = on_session!(&mut self.session, connection => {
            core_user::table
                .filter(core_user::id.gt(after.unwrap_or(i64::MIN)))
                .order(core_user::id)
                .limit(USERS_PER_READ)
                .select((UserRow::as_select(), core_user::password))
                .load(connection)
                .await?
        });
        Ok(rows.into_iter().map(django_user).collect())
    }
}

fn django_user((row, password): (UserRow, String)) -> DjangoUser {
    let user = User::from(row);
    DjangoUser {
        id: user.id.as_i64(),
        username: user.username.into_string(),
        email: user.email,
        password: PasswordHash::from_stored(password),
        is_verified: user.is_verified,
        auth_token: user.auth_token,
        created_at: user.created_at,
        updated_at: user.updated_at,
        is_disabled: user.is_disabled,
    }
}
