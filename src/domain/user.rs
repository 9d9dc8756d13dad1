//! A registered user.

use std::fmt;

use super::{AuthToken, Email, Timestamp, Username};

/// The primary key of a row in `core_user`. Internal, never sent to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(i64);

impl UserId {
    /// Wraps a key from the database.
    #[must_use]
    pub const fn from_i64(id: i64) -> Self {
        Self(id)
    }

    /// Returns the key for the database.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A registered user: a row of `core_user` without its password hash.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The primary key of the row.
    pub id: UserId,
    /// The identifier of the user in the rest of Kairos. Never changes.
    pub auth_token: AuthToken,
    /// The display name, unique by [`Username::key`].
    pub username: Username,
    /// The email, unique.
    pub email: Email,
    /// True if the user's email is verified, normally by a mailed link. A user cannot log in before that.
    pub is_verified: bool,
    /// The time at which the row was created.
    pub created_at: Timestamp,
    /// The time of the last change of a column. The replacement of an outdated hash of the same password does
    /// not count.
    pub updated_at: Timestamp,
    /// True if an operator had disabled the user when the row was read.
    pub is_disabled: bool,
}

/// Shows the keys of the row, but neither the username nor the email.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("auth_token", &self.auth_token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_name_nor_email() {
        let user = User {
            id: UserId::from_i64(7),
            auth_token: AuthToken::from_random([1; 16]),
            username: Username::parse("Ada Lovelace").unwrap(),
            email: Email::parse("ada@example.com").unwrap(),
            is_verified: true,
            created_at: Timestamp::from_unix_micros(0),
            updated_at: Timestamp::from_unix_micros(0),
            is_disabled: false,
        };
        let shown = format!("{user:?} {:?} {:?}", user.username, user.email).to_lowercase();
        assert!(shown.contains("userid(7)"), "{shown}");
        assert!(!shown.contains("ada") && !shown.contains("example"), "{shown}");
    }
}
