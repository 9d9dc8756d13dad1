//! The subcommands of `kairos-identity user`, and their arguments.

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use clap::{Args, Subcommand};

use crate::{
    accounts::UserKey,
    cli::{
        arguments::{TimeFlag, parse_user_key},
        list::FormatFlag,
    },
    domain::{AuditKind, AuthToken, Timestamp},
    store::UserFilter,
};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List users in the order of registration
    ///
    /// The fields of a user: auth_token; verified, unverified or disabled; time of registration; email;
    /// username.
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        format: FormatFlag,
    },
    /// Show one user
    Show(UserArgument),
    /// Mark a user's email as verified, without a mailed link
    Verify(UserArgument),
    /// Mark a user's email as not verified: revokes their sessions, voids their links (not one that undoes an
    /// email change) and mails a new verification link
    Unverify(UserArgument),
    /// Disable a user: revokes their sessions, voids their links (not one that undoes an email change)
    /// and refuses their logins
    Disable(UserArgument),
    /// Enable a disabled user again; mails a verification link if their email is not verified
    Enable(UserArgument),
    /// Revoke all sessions of a user
    EndSessions(UserArgument),
    /// Mail a user a link to reset their password
    ResetPassword(UserArgument),
    /// Reset the count of a user's wrong passwords, so that they can log in without waiting
    Unlock(UserArgument),
    /// Delete a user and everything that belongs to them except audit events; this cannot be undone
    Delete {
        #[command(flatten)]
        user: UserArgument,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

// No documentation comment: clap would show it instead of that of the subcommand.
#[derive(Debug, Args)]
pub(super) struct UserArgument {
    /// The user's auth_token, email or username
    #[arg(value_parser = parse_user_key)]
    pub(super) user: UserKey,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only users with a verified email
    #[arg(long, conflicts_with = "unverified")]
    verified: bool,
    /// Only users with an email that is not verified
    #[arg(long)]
    unverified: bool,
    /// Only disabled users
    #[arg(long)]
    disabled: bool,
    /// Only users who registered at or after this time: a time such as 2026-11-24T08:00:00Z, or 2h for two
    /// hours ago
    #[arg(long, value_name = "TIME")]
    since: Option<TimeFlag>,
    /// Only users who registered before this time
    #[arg(long, value_name = "TIME")]
    until: Option<TimeFlag>,
    /// Only users whose email or username contains this text, ignoring case
    #[arg(long)]
    text: Option<String>,
}

impl Filter {
    /// Returns the filter for a command that started at `now`.
    pub(super) fn at(self, now: Timestamp) -> UserFilter {
        UserFilter {
            is_verified: (self.verified || self.unverified).then_some(self.verified),
            is_disabled: self.disabled.then_some(true),
            created_since: self.since.map(|time| time.resolve(now)),
            created_before: self.until.map(|time| time.resolve(now)),
            text: self.text,
        }
    }
}

impl Action {
    /// Returns the name of the command for the audit trail.
    pub(super) const fn command(&self) -> &'static str {
        match self {
            Self::List { .. } => "user list",
            Self::Show(_) => "user show",
            Self::Verify(_) => "user verify",
            Self::Unverify(_) => "user unverify",
            Self::Disable(_) => "user disable",
            Self::Enable(_) => "user enable",
            Self::EndSessions(_) => "user end-sessions",
            Self::ResetPassword(_) => "user reset-password",
            Self::Unlock(_) => "user unlock",
            Self::Delete { .. } => "user delete",
        }
    }

    /// Returns the `auth_token` by which the operator named the user, for the audit trail: it is recorded
    /// even if there is no such user. `None` for an email or a username.
    pub(super) const fn named_auth_token(&self) -> Option<AuthToken> {
        match self {
            Self::List { .. } => None,
            Self::Show(UserArgument { user })
            | Self::Verify(UserArgument { user })
            | Self::Unverify(UserArgument { user })
            | Self::Disable(UserArgument { user })
            | Self::Enable(UserArgument { user })
            | Self::EndSessions(UserArgument { user })
            | Self::ResetPassword(UserArgument { user })
            | Self::Unlock(UserArgument { user })
            | Self::Delete { user: UserArgument { user }, .. } => match user {
                UserKey::AuthToken(token) => Some(*token),
                UserKey::Email(_) | UserKey::Username(_) => None,
            },
        }
    }

    /// Returns the reason to print if the command succeeds and changes nothing. `None` if the command states
    /// it in its output, only reads, or always changes something.
    pub(super) const fn unchanged(&self) -> Option<&'static str> {
        match self {
            Self::Verify(_) => Some("the email is verified already"),
            Self::Unverify(_) => Some("the email is not verified"),
            Self::Disable(_) => Some("the user is disabled already"),
            Self::Enable(_) => Some("the user is not disabled"),
            Self::List { .. }
            | Self::Show(_)
            | Self::EndSessions(_)
            | Self::ResetPassword(_)
            | Self::Unlock(_)
            | Self::Delete { .. } => None,
        }
    }

    /// Returns the kind of the audit event if the command is refused.
    pub(super) const fn refusal(&self) -> AuditKind {
        match self {
            Self::List { .. } | Self::Show(_) => AuditKind::SensitiveReadFail,
            Self::Verify(_) | Self::Unverify(_) => AuditKind::UserUpdateFail,
            Self::Disable(_) => AuditKind::UserDisableFail,
            Self::Enable(_) => AuditKind::UserEnableFail,
            Self::EndSessions(_) => AuditKind::SessionExpireFail,
            Self::ResetPassword(_) => AuditKind::AuthnTokenCreateFail,
            Self::Unlock(_) => AuditKind::AuthnLoginUnlockFail,
            Self::Delete { .. } => AuditKind::UserDeleteFail,
        }
    }
}
