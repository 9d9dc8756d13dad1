//! A person, as the service knows them.

use std::fmt;

use super::{AuthToken, Email, Timestamp, Username};

/// The key of a row in `core_user`; internal, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(i64);

impl UserId {
    /// The key that the database gave.
    #[must_use]
    pub const fn from_i64(id: i64) -> Self {
        Self(id)
    }

    /// The key as the database knows it.
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

/// A registered person: a row of `core_user` without its password hash.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The row.
    pub id: UserId,
    /// What the rest of Kairos knows the person by; never changes.
    pub auth_token: AuthToken,
    /// The display name, unique by [`Username::key`].
    pub username: Username,
    /// The mailbox, unique.
    pub email: Email,
    /// Whether the person has shown, by a mailed link, that they read `email`. Nobody logs in before.
    pub is_verified: bool,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When any column last changed.
    pub updated_at: Timestamp,
}

/// Names the row and nothing that would identify the person to a reader of logs.
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
        };
        let shown = format!("{user:?} {:?} {:?}", user.username, user.email).to_lowercase();
        assert!(shown.contains("userid(7)"), "{shown}");
        assert!(!shown.contains("ada") && !shown.contains("example"), "{shown}");
    }
}
