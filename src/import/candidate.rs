//! The rows of the source, and what an import does with each.

use crate::domain::{AuthToken, Email, UserId};

/// The identity of a row of the source. Several rows may have the same `auth_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceRow {
    /// The `auth_token` in the row.
    pub auth_token: AuthToken,
    /// The id of the row.
    pub id: i64,
}

/// What the import does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserState {
    /// The row becomes a user.
    New,
    /// The row differs from its user, who has not changed here since the import: an import changes the user
    /// too. In a comparison also a row that no import has recorded.
    Changed,
    /// Imported before. Its plaintext password may have changed since; only hashing it can show that.
    Unchecked,
    /// Imported before, and unchanged since.
    Unchanged,
    /// The store already had its user, with the same `auth_token` and email. The user stays as it is.
    AlreadyHere,
    /// Imported before. The user was changed in this service since, and stays as it is.
    ChangedHere,
    /// Imported before. The user was deleted in this service since.
    DeletedHere,
    /// Left out by the decision of the operator: another row or user with the same email is kept.
    LeftOut,
    /// Left out by an earlier run, and unchanged since.
    LeftOutBefore,
    /// In a conflict that the operator has not decided.
    Refused,
}

impl UserState {
    /// All states.
    pub const ALL: &[Self] = &[
        Self::New,
        Self::Changed,
        Self::Unchecked,
        Self::Unchanged,
        Self::AlreadyHere,
        Self::ChangedHere,
        Self::DeletedHere,
        Self::LeftOut,
        Self::LeftOutBefore,
        Self::Refused,
    ];

    /// Returns the name of the state in a report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchecked => "unchecked",
            Self::Unchanged => "unchanged",
            Self::AlreadyHere => "already_here",
            Self::ChangedHere => "changed_here",
            Self::DeletedHere => "deleted_here",
            Self::LeftOut => "left_out",
            Self::LeftOutBefore => "left_out_before",
            Self::Refused => "refused",
        }
    }

    /// Returns the state with this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }
}

/// A row that can become a user, or has become one.
#[derive(Clone)]
pub struct Candidate {
    /// Id of the row in the source.
    pub id: i64,
    /// `auth_token` of the row in the source.
    pub row_token: AuthToken,
    /// `auth_token` of its user: that of the row, unless another row or user keeps it.
    pub auth_token: AuthToken,
    /// Email address, in the form in which the store holds it.
    pub email: Email,
    /// Username of its user.
    pub username: String,
    /// Username key; `None` if the username breaks a rule or has the same key as another
    /// one.
    pub username_key: Option<String>,
    /// True if the email is verified.
    pub is_verified: bool,
    /// SHA-256 of the row without its password.
    pub row_digest: [u8; 32],
    /// SHA-256 of the password; a keyed digest if the password is plaintext.
    pub password_digest: [u8; 32],
    /// The user that the row has become.
    pub user: Option<UserId>,
    /// What the import does with the row.
    pub state: UserState,
}
