//! User look-ups and lists for operators, from `core_user` and `core_disabled_user`.

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl,
    SelectableHelper, TextExpressionMethods, dsl::not,
};
use diesel_async::RunQueryDsl;

use super::users::{UserRow, is_row_disabled};
use crate::domain::{AuthToken, Timestamp, User, UserId, Username};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read,
    },
    store::{
        Store,
        schema::{core_disabled_user, core_user},
    },
};

/// Maximum number of users that [`Store::list_users`] returns: a page of 1,000, and one more that shows
/// whether there is another page.
pub const USERS_PAGE_MAX: i64 = 1_001;

/// A user, with their disabled state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedUser {
    /// The user.
    pub user: User,
    /// The time when an operator disabled the user; `None` if the user is not disabled.
    pub disabled_at: Option<Timestamp>,
}

/// Which users to list. A user must match every condition that is set.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Only users whose email is verified, or only those whose email is not.
    pub is_verified: Option<bool>,
    /// Only disabled users, or only users who are not disabled.
    pub is_disabled: Option<bool>,
    /// Only users who registered at this time or later.
    pub created_since: Option<Timestamp>,
    /// Only users who registered before this time.
    pub created_before: Option<Timestamp>,
    /// Text that the email or the username must contain, ignoring case.
    pub text: Option<String>,
}

/// Query expression: the time when the user of this row was disabled.
#[diesel::dsl::auto_type]
fn disabled_at() -> _ {
    core_disabled_user::table
        .filter(core_disabled_user::user_id.eq(core_user::id))
        .select(core_disabled_user::disabled_at)
        .single_value()
}

diesel::define_sql_function! {
    /// Converts the ASCII letters of a text to lower case; on PostgreSQL, all letters that its locale knows.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

diesel::define_sql_function! {
    /// Replaces each occurrence of a text.
    fn replace(
        text: diesel::sql_types::Text,
        from: diesel::sql_types::Text,
        to: diesel::sql_types::Text,
    ) -> diesel::sql_types::Text;
}

/// Returns LIKE patterns for `lower(username)`, for the usernames that imported users have kept although they
/// break a rule or equal another username: their `username_key` is not made from the username. On SQLite,
/// `lower` converts only the letters of ASCII.
fn kept_name_patterns(text: &str) -> [String; 3] {
    let patterns = [
        // Other letters as typed.
        text.to_ascii_lowercase(),
        // Other letters in lower case; on PostgreSQL, `lower` makes all names so.
        text.to_lowercase(),
        // Other letters in upper case.
        text.to_uppercase().to_ascii_lowercase(),
    ];
    patterns.map(|text| like_pattern(&text))
}

/// Returns the LIKE pattern for columns that contain `text`. Escapes the wildcards with a backslash.
fn like_pattern(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

impl Store {
    /// Returns the user with this `auth_token`, with their disabled state. Always reads from the primary,
    /// also when there are replicas.
    pub async fn find_managed_user(
        &self,
        auth_token: AuthToken,
    ) -> Result<Option<ManagedUser>, DatabaseError> {
        let auth_token = UuidColumn(*auth_token.as_uuid());
        read!(&self.connections, connection => {
            let row: Option<(UserRow, Option<TimestampColumn>)> = core_user::table
                .select((UserRow::as_select(), disabled_at()))
                .filter(core_user::auth_token.eq(auth_token))
                .get_result(connection)
                .await
                .optional()?;
            Ok(row.map(ManagedUser::from))
        })
    }

    /// Returns the users who match the filter and come after `after`, in the order of registration. Returns
    /// at most `limit` users, and never more than [`USERS_PAGE_MAX`].
    pub async fn list_users(
        &self,
        filter: UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<ManagedUser>, DatabaseError> {
        let after = after.map_or(i64::MIN, UserId::as_i64);
        read!(&self.connections, connection => {
            let mut query = core_user::table
                .select((UserRow::as_select(), disabled_at()))
                .filter(core_user::id.gt(after))
                .order(core_user::id)
                .limit(limit.clamp(0, USERS_PAGE_MAX))
                .into_boxed();
            if let Some(is_verified) = filter.is_verified {
                query = query.filter(core_user::is_verified.eq(is_verified));
            }
            if let Some(is_disabled) = filter.is_disabled {
                query = if is_disabled { query.filter(is_row_disabled()) } else { query.filter(not(is_row_disabled())) };
            }
            if let Some(since) = filter.created_since {
                query = query.filter(core_user::created_at.ge(TimestampColumn(since)));
            }
            if let Some(before) = filter.created_before {
                query = query.filter(core_user::created_at.lt(TimestampColumn(before)));
            }
            if let Some(text) = filter.text {
                // Both forms of sigma are one: a part of a word does not show which one the word has there.
                let pattern = like_pattern(&text.to_lowercase()).replace('ς', "σ");
                let email = replace(core_user::email, "ς", "σ").like(pattern).escape('\\');
                let [typed, lower_case, upper_case] = kept_name_patterns(&text);
                let kept = core_user::username_key.like(format!("{}%", Username::KEPT_KEY_PREFIX)).and(
                    lower(core_user::username).like(typed).escape('\\')
                        .or(lower(core_user::username).like(lower_case).escape('\\'))
                        .or(lower(core_user::username).like(upper_case).escape('\\')),
                );
                query = match Username::comparison_key(&text) {
                    Ok(key) => {
                        let username = core_user::username_key.like(like_pattern(&key)).escape('\\');
                        query.filter(email.or(username).or(kept))
                    }
                    Err(_) => query.filter(email.or(kept)), // no other user can have such a username
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
    fn like_wildcards_are_escaped() {
        assert_eq!(like_pattern("50%_\\a"), "%50\\%\\_\\\\a%");
    }
}
