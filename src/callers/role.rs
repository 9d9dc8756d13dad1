//! Presets of rights. The callers file contains what a preset grants, so that it can be read there.

/// The role of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A backend that acts for users: registration, login, sessions and accounts.
    Bff,
    /// A service that looks up users and verifies access tokens.
    Agent,
    /// A tool of the operators: lists, changes and deletes users.
    Operator,
    /// A probe that reads the public keys and the description of the API, and no users.
    Monitor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Bff, Self::Agent, Self::Operator, Self::Monitor];

    /// Returns the name of the role on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bff => "bff",
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Monitor => "monitor",
        }
    }

    /// Returns the method patterns that the role grants.
    pub(super) const fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Bff => &["IdentityService/*", "SessionService/*", "AccountService/*"],
            Self::Agent => &[
                "IdentityService/ResolveToken",
                "IdentityService/ResolveTokens",
                "SessionService/GetJwks",
                "SessionService/IntrospectToken",
            ],
            Self::Operator => &["AdminService/*", "IdentityService/FindUser", "ServerReflection/*"],
            Self::Monitor => &["SessionService/GetJwks", "ServerReflection/*"],
        }
    }

    /// Returns the user fields that the role may see.
    pub(super) const fn user_fields(self) -> &'static [&'static str] {
        match self {
            Self::Bff | Self::Operator => &["*"],
            Self::Agent => &["username", "is_verified", "state"],
            Self::Monitor => &[],
        }
    }

    /// True if the address and the program of the end user are accepted from the caller.
    pub(super) const fn tells_client(self) -> bool {
        matches!(self, Self::Bff)
    }
}
