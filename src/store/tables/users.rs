//! Queries of `core_user`.

use diesel::{
    AsChangeset, ExpressionMethods, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::known_addresses::KnownAddressStatements;
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read, statements, write,
    },
    domain::{AuthToken, Email, PasswordHash, Timestamp, User, UserId, Username},
    store::{
        Store,
        schema::{core_disabled_user, core_user},
    },
};

/// A user, with the data that a login is checked against.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user with the requested email.
    pub user: User,
    /// The stored password hash.
    pub password: PasswordHash,
    /// True if an operator has disabled the user.
    pub is_disabled: bool,
}

/// The columns of a user that may leave the store. The password hash is not among them.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = core_user)]
pub(crate) struct UserRow {
    id: i64,
    username: String,
    username_key: String,
    email: String,
    is_verified: bool,
    auth_token: UuidColumn,
    created_at: TimestampColumn,
    updated_at: TimestampColumn,
    #[diesel(select_expression = is_row_disabled())]
    #[diesel(select_expression_type = is_row_disabled)]
    is_disabled: bool,
}

impl UserRow {
    pub(crate) const fn id(&self) -> i64 {
        self.id
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: UserId::from_i64(row.id),
            auth_token: AuthToken::from_uuid(row.auth_token.0),
            username: Username::from_stored(row.username, row.username_key),
            email: Email::from_stored(row.email),
            is_verified: row.is_verified,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            is_disabled: row.is_disabled,
        }
    }
}

/// The columns of a user to change; `None` keeps a column.
#[derive(Clone, Default, AsChangeset)]
#[diesel(table_name = core_user)]
pub(crate) struct UserChange {
    pub(super) username: Option<String>,
    pub(super) username_key: Option<String>,
    pub(super) email: Option<String>,
    pub(super) password: Option<String>,
    pub(super) is_verified: Option<bool>,
}

impl UserChange {
    /// Marks the user's email as verified or not verified.
    pub(super) fn verified(is_verified: bool) -> Self {
        Self { is_verified: Some(is_verified), ..Self::default() }
    }
}

/// Query condition: true if the user of this row is disabled.
#[diesel::dsl::auto_type]
pub(super) fn is_row_disabled() -> _ {
    diesel::dsl::exists(core_disabled_user::table.filter(core_disabled_user::user_id.eq(core_user::id)))
}

/// The assignment of an UPDATE that changes nothing. Such an UPDATE locks its rows on both engines.
#[diesel::dsl::auto_type]
fn no_change() -> _ {
    core_user::is_verified.eq(core_user::is_verified)
}

statements! {
    /// Statements on users that are part of larger transactions.
    pub(crate) trait UserStatements {
        /// Locks a user's row and returns the user, or `None` if the user was deleted. Other data about the
        /// user must be read after this lock: what a transaction read before may have changed while it
        /// waited.
        async fn lock_user(&mut self, user: UserId) -> Result<Option<User>, DatabaseError> {
            let row: Option<UserRow> = diesel::update(core_user::table.find(user.as_i64()))
                .set(no_change())
                .returning(UserRow::as_returning())
                .get_result(self)
                .await
                .optional()?;
            Ok(row.map(User::from))
        }

        /// Locks the row of the user with this email and returns the user, or `None` if there is none.
        async fn lock_user_by_email(&mut self, email: &str) -> Result<Option<User>, DatabaseError> {
            let of_email = core_user::table.filter(core_user::email.eq(email.to_owned()));
            let row: Option<UserRow> = diesel::update(of_email)
                .set(no_change())
                .returning(UserRow::as_returning())
                .get_result(self)
                .await
                .optional()?;
            Ok(row.map(User::from))
        }

        /// True if the user is disabled.
        async fn is_user_disabled(&mut self, user: UserId) -> Result<bool, DatabaseError> {
            let disabled = core_disabled_user::table.find(user.as_i64());
            Ok(diesel::select(diesel::dsl::exists(disabled)).get_result(self).await?)
        }

        /// Locks a user's row and returns the user, or `None` if the user was deleted or is disabled.
        async fn lock_enabled_user(&mut self, user: UserId) -> Result<Option<User>, DatabaseError> {
            let Some(user) = self.lock_user(user).await? else { return Ok(None) };
            let is_disabled = self.is_user_disabled(user.id).await?;
            Ok((!is_disabled).then_some(user))
        }

        /// Locks a user's row if it has this password hash, which was read before. Returns the user, or
        /// `None` if the password changed, or the user was deleted or disabled, in the meantime.
        async fn lock_if_unchanged(
            &mut self,
            user: UserId,
            hash: &PasswordHash,
        ) -> Result<Option<User>, DatabaseError> {
            let with_this_hash =
                core_user::table.find(user.as_i64()).filter(core_user::password.eq(hash.expose().to_owned()));
            let row: Option<UserRow> = diesel::update(with_this_hash)
                .set(no_change())
                .returning(UserRow::as_returning())
                .get_result(self)
                .await
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            // Checked after the row is locked, because an operator may have disabled the user in the
            // meantime.
            let is_disabled = self.is_user_disabled(user).await?;
            Ok((!is_disabled).then(|| row.into()))
        }

        /// Changes a user at `now`, and returns the user.
        async fn change_user(
            &mut self,
            user: UserId,
            change: UserChange,
            now: Timestamp,
        ) -> Result<User, DatabaseError> {
            let row: UserRow = diesel::update(core_user::table.find(user.as_i64()))
                .set((change, core_user::updated_at.eq(TimestampColumn(now))))
                .returning(UserRow::as_returning())
                .get_result(self)
                .await?;
            Ok(row.into())
        }

        /// Sets whether the user's email is verified, at `now`, deletes the known addresses, and returns the
        /// user.
        async fn set_verified(
            &mut self,
            user: UserId,
            is_verified: bool,
            now: Timestamp,
        ) -> Result<User, DatabaseError> {
            let user = self.change_user(user, UserChange::verified(is_verified), now).await?;
            self.delete_known_addresses(user.id).await?;
            Ok(user)
        }

        /// Locks the users with these ids.
        async fn lock_users(&mut self, ids: &[i64]) -> Result<(), DatabaseError> {
            diesel::update(core_user::table.filter(core_user::id.eq_any(ids.to_vec())))
                .set(no_change())
                .execute(self)
                .await?;
            Ok(())
        }
    }
}

impl Store {
    /// Returns the user with this email, which an earlier release may have stored in another form.
    pub async fn find_user_by_email(&self, email: &Email) -> Result<Option<User>, DatabaseError> {
        let exact = email.as_str().to_owned();
        let found: Option<User> = read!(&self.connections, connection => {
            let query = core_user::table.filter(core_user::email.eq(exact)).select(UserRow::as_select());
            Ok(query.get_result(connection).await.optional()?.map(User::from))
        })?;
        let earlier: Vec<String> = email.earlier_forms().into_iter().map(Email::into_string).collect();
        if found.is_some() || earlier.is_empty() {
            return Ok(found);
        }
        read!(&self.connections, connection => {
            let query = core_user::table.filter(core_user::email.eq_any(earlier)).order(core_user::id);
            let first = query.limit(1).select(UserRow::as_select());
            Ok(first.get_result(connection).await.optional()?.map(User::from))
        })
    }

    /// Returns the form in which the store holds this email: another one if an earlier release has stored it,
    /// otherwise the email itself.
    pub async fn stored_email(&self, email: &Email) -> Result<Email, DatabaseError> {
        if email.earlier_forms().is_empty() {
            return Ok(email.clone());
        }
        Ok(self.find_user_by_email(email).await?.map_or_else(|| email.clone(), |user| user.email))
    }

    /// Returns the user with this username, in any spelling that has the same username key.
    pub async fn find_user_by_username(&self, username: &Username) -> Result<Option<User>, DatabaseError> {
        let key = username.key().to_owned();
        read!(&self.connections, connection => {
            let query = core_user::table.filter(core_user::username_key.eq(key)).select(UserRow::as_select());
            Ok(query.get_result(connection).await.optional()?.map(User::from))
        })
    }

    /// Returns the user with this email, with the password hash and the disabled state.
    pub async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>, DatabaseError> {
        let email = self.stored_email(email).await?.into_string();
        read!(&self.connections, connection => {
            let row: Option<(UserRow, String)> = core_user::table
                .filter(core_user::email.eq(email))
                .select((UserRow::as_select(), core_user::password))
                .get_result(connection)
                .await
                .optional()?;
            Ok(row.map(|(user, hash)| Credentials {
                is_disabled: user.is_disabled,
                user: user.into(),
                password: PasswordHash::from_stored(hash),
            }))
        })
    }

    /// Replaces a password hash with a stronger hash of the same password, unless it changed since `old` was
    /// read. Returns true if it was replaced. `updated_at` stays, because the user did not change anything.
    pub async fn rewrite_password(
        &self,
        user: UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, DatabaseError> {
        let (old, new) = (old.expose().to_owned(), new.expose().to_owned());
        write!(&self.connections, connection => {
            let with_old_hash = core_user::table.find(user.as_i64()).filter(core_user::password.eq(old));
            let updated = diesel::update(with_old_hash).set(core_user::password.eq(new)).execute(connection).await?;
            Ok(updated > 0)
        })
    }
}
