//! Users as an operator sees them: `core_user` with `core_disabled_user`.

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, NullableExpressionMethods,
    OptionalExtension, QueryDsl, SelectableHelper, TextExpressionMethods,
};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    columns::{TimestampColumn, UuidColumn},
    connection::read,
    schema::{core_disabled_user, core_user},
    users::UserRow,
};
use crate::domain::{AuthToken, Timestamp, User, UserId, Username};

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
