//! Queries of `core_user`.

use diesel::{
    ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl, Queryable, Selectable,
    SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::audit::record;
use crate::domain::{AuditEvent, AuthToken, Email, PasswordHash, Timestamp, User, UserId, Username};
use crate::store::{
    Store, StoreError,
    columns::{TimestampColumn, UuidColumn},
    connection::{read, write},
    schema::{core_disabled_user, core_user},
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
        }
    }
}

/// Query condition: true if the user registered here, never verified the email, was not imported and is not
/// disabled. A user whose `updated_at` differs from `created_at` has changed since the registration and does
/// not match, even if an operator marked the email as not verified. Imported users have data in other systems
/// and are never deleted automatically.
macro_rules! is_unproven {
    () => {{
        use diesel::{BoolExpressionMethods, NullableExpressionMethods as _};
        use $crate::store::{
            schema::{core_imported_user, core_user},
            tables::disabled_users::is_disabled,
        };
        let imported =
            core_imported_user::table.filter(core_imported_user::user_id.eq(core_user::id.nullable()));
        core_user::is_verified
            .eq(false)
            .and(core_user::updated_at.eq(core_user::created_at))
            .and(diesel::dsl::not(is_disabled!(core_user::id)))
            .and(diesel::dsl::not(diesel::dsl::exists(imported)))
    }};
}
pub(super) use is_unproven;

/// Query condition: true if `is_unproven!` holds and the user has no valid verification link left, so that
/// the email can be registered again. A user who once verified the email never matches.
macro_rules! is_abandoned {
    ($now:expr) => {{
        use diesel::BoolExpressionMethods;
        use $crate::store::{
            columns::TimestampColumn,
            schema::{core_mail_token, core_user},
        };
        let live_link = core_mail_token::table
            .filter(core_mail_token::user_id.eq(core_user::id))
            .filter(core_mail_token::purpose.eq($crate::domain::MailTokenPurpose::VerifyEmail.as_str()))
            .filter(core_mail_token::expires_at.gt(TimestampColumn($now)))
            .filter(core_mail_token::used_at.is_null())
            .filter(core_mail_token::voided_at.is_null());
        $crate::store::tables::users::is_unproven!().and(diesel::dsl::not(diesel::dsl::exists(live_link)))
    }};
}
pub(super) use is_abandoned;

/// Deletes the users of a query, records one copy of `$event` for each, and returns these events.
///
/// One statement locks the users, and a second one deletes those that still match the full condition. After
/// it waited for a row lock, PostgreSQL evaluates conditions on other tables with the data from before the
/// wait, so a single DELETE could delete a user that no longer matches.
macro_rules! forget_users {
    ($connection:expr, $users:expr, $event:expr) => {{
        use $crate::{
            domain::{AuditEvent, AuthToken},
            store::{columns::UuidColumn, schema::core_user, tables::audit::record},
        };
        let event: &AuditEvent = $event;
        let locked: Vec<i64> = diesel::update($users)
            .set(core_user::is_verified.eq(core_user::is_verified))
            .returning(core_user::id)
            .get_results($connection)
            .await?;
        let deleted: Vec<UuidColumn> = diesel::delete($users.filter(core_user::id.eq_any(locked)))
            .returning(core_user::auth_token)
            .get_results($connection)
            .await?;
        let about = |user: UuidColumn| event.clone().about(Some(AuthToken::from_uuid(user.0)));
        let events: Vec<AuditEvent> = deleted.into_iter().map(about).collect();
        for event in &events {
            record!($connection, event.clone());
        }
        events
    }};
}
pub(super) use forget_users;

impl Store {
    /// True if the user with this email registered here, never verified it and has no valid verification link
    /// left. The email can then be registered again.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn is_abandoned(&self, email: &Email, now: Timestamp) -> Result<bool, StoreError> {
        let email = email.as_str().to_owned();
        read!(&self.connections, connection => {
            let abandoned = core_user::table.filter(core_user::email.eq(email)).filter(is_abandoned!(now));
            Ok(diesel::select(diesel::dsl::exists(abandoned)).get_result(connection).await?)
        })
    }

    /// Returns the user with this email.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_user_by_email(&self, email: &Email) -> Result<Option<User>, StoreError> {
        let email = email.as_str().to_owned();
        read!(&self.connections, connection => {
            let query = core_user::table.filter(core_user::email.eq(email)).select(UserRow::as_select());
            Ok(query.get_result(connection).await.optional()?.map(User::from))
        })
    }

    /// Returns the user with this username, in any spelling that has the same comparison form.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_user_by_username(&self, username: &Username) -> Result<Option<User>, StoreError> {
        let key = username.key().to_owned();
        read!(&self.connections, connection => {
            let query = core_user::table.filter(core_user::username_key.eq(key)).select(UserRow::as_select());
            Ok(query.get_result(connection).await.optional()?.map(User::from))
        })
    }

    /// Returns the user with this email, with the password hash and the disabled state.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>, StoreError> {
        let email = email.as_str().to_owned();
        read!(&self.connections, connection => {
            let row: Option<(UserRow, String, Option<i64>)> = core_user::table
                .left_join(core_disabled_user::table)
                .filter(core_user::email.eq(email))
                .select((UserRow::as_select(), core_user::password, core_disabled_user::user_id.nullable()))
                .get_result(connection)
                .await
                .optional()?;
            Ok(row.map(|(user, hash, disabled)| Credentials {
                user: user.into(),
                password: PasswordHash::from_stored(hash),
                is_disabled: disabled.is_some(),
            }))
        })
    }

    /// Deletes a user with their sessions, links, mails and registration requests, and records the event.
    /// Returns false if the user does not exist.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn delete_user(&self, user: UserId, event: AuditEvent) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            let deleted = diesel::delete(core_user::table.find(user.as_i64())).execute(connection).await?;
            if deleted > 0 {
                record!(connection, event);
            }
            Ok(deleted > 0)
        })
    }

    /// Replaces a password hash with a stronger hash of the same password, unless it changed since `old` was
    /// read. Returns true if it was replaced. `updated_at` stays, because the user did not change anything.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn rewrite_password(
        &self,
        user: UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        let (old, new) = (old.expose().to_owned(), new.expose().to_owned());
        write!(&self.connections, connection => {
            let same = core_user::table.find(user.as_i64()).filter(core_user::password.eq(old));
            let updated = diesel::update(same).set(core_user::password.eq(new)).execute(connection).await?;
            Ok(updated > 0)
        })
    }
}
