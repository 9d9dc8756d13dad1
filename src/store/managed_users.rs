//! Users as an operator sees them: `core_user` with `core_disabled_user`, and what an operator does to both.

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, NullableExpressionMethods,
    OptionalExtension, QueryDsl, SelectableHelper, TextExpressionMethods,
};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    audit::record,
    columns::{TimestampColumn, UuidColumn},
    connection::{read, write},
    mails::{NewMail, post, void_links},
    schema::{core_disabled_user, core_user},
    sessions::end_sessions_of,
    users::UserRow,
};
use crate::domain::{AuditEvent, AuthToken, MailTokenPurpose, Timestamp, User, UserId, Username};

/// The most users that one page of [`Store::list_users`] holds: a thousand, and one that tells whether there are more.
pub const USERS_PAGE_MAX: i64 = 1_001;

/// A user, and whether an operator keeps them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedUser {
    /// Who it is.
    pub user: User,
    /// Since when they are disabled; nothing when they are not.
    pub disabled_at: Option<Timestamp>,
}

/// Which users are asked for; every condition that is there must hold.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Whether their address is proven.
    pub is_verified: Option<bool>,
    /// Whether they are disabled.
    pub is_disabled: Option<bool>,
    /// Registered then or later.
    pub created_since: Option<Timestamp>,
    /// Registered before.
    pub created_before: Option<Timestamp>,
    /// What their email or username contains, in any case.
    pub text: Option<String>,
}

/// Whether this user, a value or a column, is disabled: a condition of a query.
macro_rules! is_disabled {
    ($user:expr) => {{
        use $crate::store::schema::core_disabled_user;
        diesel::dsl::exists(core_disabled_user::table.filter(core_disabled_user::user_id.eq($user)))
    }};
}
pub(super) use is_disabled;

/// Locks a user and gives them; nothing when they are gone. Whatever else a transaction asks of them is asked afterwards: what it saw before may
/// have changed while it waited.
macro_rules! lock_user {
    ($connection:expr, $user:expr) => {{
        use $crate::store::{schema::core_user, users::UserRow};
        let user: $crate::domain::UserId = $user;
        // An UPDATE that changes nothing locks the row on both engines.
        diesel::update(core_user::table.find(user.as_i64()))
            .set(core_user::is_verified.eq(core_user::is_verified))
            .returning(UserRow::as_returning())
            .get_result($connection)
            .await
            .optional()?
            .map($crate::domain::User::from)
    }};
}
pub(super) use lock_user;

/// `text` anywhere in a column, as LIKE has it; what LIKE would take for more than itself stands behind a backslash.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// The columns of a [`ManagedUser`], from both tables.
macro_rules! managed_users {
    () => {
        core_user::table
            .left_join(core_disabled_user::table)
            .select((UserRow::as_select(), core_disabled_user::disabled_at.nullable()))
    };
}

impl Store {
    /// The user with this `auth_token`, as an operator sees them. Asks the database that writes, whatever replicas there are.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_managed_user(&self, auth_token: AuthToken) -> Result<Option<ManagedUser>, StoreError> {
        let auth_token = UuidColumn(*auth_token.as_uuid());
        read!(&self.connections, connection => {
            let row: Option<(UserRow, Option<TimestampColumn>)> = managed_users!()
                .filter(core_user::auth_token.eq(auth_token))
                .get_result(connection)
                .await
                .optional()?;
            Ok(row.map(ManagedUser::from))
        })
    }

    /// At most `limit` users (and [`USERS_PAGE_MAX`]) who pass the filter, in the order of their registration, after `after`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list_users(
        &self,
        filter: UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<ManagedUser>, StoreError> {
        let after = after.map_or(i64::MIN, UserId::as_i64);
        let (since, before) =
            (filter.created_since.map(TimestampColumn), filter.created_before.map(TimestampColumn));
        read!(&self.connections, connection => {
            let mut query = managed_users!()
                .filter(core_user::id.gt(after))
                .order(core_user::id)
                .limit(limit.clamp(0, USERS_PAGE_MAX))
                .into_boxed();
            if let Some(is_verified) = filter.is_verified {
                query = query.filter(core_user::is_verified.eq(is_verified));
            }
            if let Some(is_disabled) = filter.is_disabled {
                let column = core_disabled_user::disabled_at;
                query = if is_disabled { query.filter(column.is_not_null()) } else { query.filter(column.is_null()) };
            }
            if let Some(since) = since {
                query = query.filter(core_user::created_at.ge(since));
            }
            if let Some(before) = before {
                query = query.filter(core_user::created_at.lt(before));
            }
            if let Some(text) = filter.text {
                let email = core_user::email.like(containing(&text.to_lowercase())).escape('\\');
                query = match Username::comparison_key(&text) {
                    Ok(key) => query.filter(email.or(core_user::username_key.like(containing(&key)).escape('\\'))),
                    Err(_) => query.filter(email), // it is no part of a username that anybody would type
                };
            }
            let rows: Vec<(UserRow, Option<TimestampColumn>)> = query.load(connection).await?;
            Ok(rows.into_iter().map(ManagedUser::from).collect())
        })
    }

    /// Marks the user's email as verified, at the time of the event, which is written with it if that changes anything; gives the user, or
    /// nothing when they are gone.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn mark_verified(
        &self,
        user: UserId,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        self.set_verified(user, true, None, event).await
    }

    /// Marks the user's email as not verified, ends all sessions, voids all links and mails one that proves it again; otherwise as
    /// [`Store::mark_verified`].
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn mark_unverified(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        self.set_verified(user, false, Some(link), event).await
    }

    async fn set_verified(
        &self,
        user: UserId,
        is_verified: bool,
        link: Option<NewMail>,
        event: AuditEvent,
    ) -> Result<Option<(User, bool)>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(None) };
            if user.is_verified == is_verified {
                return Ok(Some((user, false)));
            }
            let user: UserRow = diesel::update(core_user::table.find(user.id.as_i64()))
                .set((core_user::is_verified.eq(is_verified), core_user::updated_at.eq(TimestampColumn(now))))
                .returning(UserRow::as_returning())
                .get_result(connection)
                .await?;
            let user = User::from(user);
            if !is_verified {
                for purpose in MailTokenPurpose::ALL {
                    void_links!(connection, user.id, purpose, now);
                }
                end_sessions_of!(connection, user.id.as_i64(), None);
            }
            let is_out: bool = diesel::select(is_disabled!(user.id.as_i64())).get_result(connection).await?;
            // The link is to the address that they had when it was made; who is kept out gets one when they are let in.
            if let Some(link) = link.filter(|link| !is_out && link.recipient == user.email) {
                post!(connection, user.id, &link, now);
            }
            record!(connection, event);
            Ok(Some((user, true)))
        })
    }

    /// Keeps a user out from the time of the event on, which is written with it: ends all sessions and voids all links. Says whether they were not
    /// kept out before; nothing when they are gone.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn disable_user(&self, user: UserId, event: AuditEvent) -> Result<Option<bool>, StoreError> {
        let now = event.at;
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(None) };
            let id = user.id.as_i64();
            if diesel::select(is_disabled!(id)).get_result::<bool>(connection).await? {
                return Ok(Some(false));
            }
            diesel::insert_into(core_disabled_user::table)
                .values((core_disabled_user::user_id.eq(id), core_disabled_user::disabled_at.eq(TimestampColumn(now))))
                .execute(connection)
                .await?;
            for purpose in MailTokenPurpose::ALL {
                void_links!(connection, user.id, purpose, now);
            }
            end_sessions_of!(connection, id, None);
            record!(connection, event);
            Ok(Some(true))
        })
    }

    /// Lets a user in again, and writes the event; says whether they were kept out. Who has not proven their address is mailed the link that
    /// does: without one they would be forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn enable_user(
        &self,
        user: UserId,
        link: NewMail,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        write!(&self.connections, connection => {
            let Some(user) = lock_user!(connection, user) else { return Ok(false) };
            let disabled = core_disabled_user::table.find(user.id.as_i64());
            if diesel::delete(disabled).execute(connection).await? == 0 {
                return Ok(false);
            }
            if !user.is_verified && link.recipient == user.email {
                post!(connection, user.id, &link, event.at);
            }
            record!(connection, event);
            Ok(true)
        })
    }
}

impl From<(UserRow, Option<TimestampColumn>)> for ManagedUser {
    fn from((user, disabled_at): (UserRow, Option<TimestampColumn>)) -> Self {
        Self { user: user.into(), disabled_at: disabled_at.map(|at| at.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_takes_for_more_is_taken_for_itself() {
        assert_eq!(containing("50%_\\a"), "%50\\%\\_\\\\a%");
    }
}
