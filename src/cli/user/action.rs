//! The subcommands of `kairos-identity user`, and their arguments.

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use clap::{Args, Subcommand};

use crate::{
    accounts::UserKey,
    cli::arguments::{TimeFlag, parse_user_key},
    domain::{AuditKind, Timestamp},
    store::UserFilter,
};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List users in the order of registration
    ///
    /// Prints one user per line. The fields are separated by tabs: auth_token; verified, unverified or
    /// disabled; time of registration; email; username.
    List(Filter),
    /// Show one user
    Show {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Mark a user's email as verified, without a mailed link
    Verify {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Mark a user's email as not verified: revokes their sessions, voids their links and mails a new
    /// verification link
    Unverify {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Disable a user: revokes their sessions, voids their links and refuses their logins
    Disable {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Enable a disabled user again; mails a verification link if their email is not verified
    Enable {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Revoke all sessions of a user
    EndSessions {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Mail a user a link to reset their password
    ResetPassword {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Reset the count of a user's wrong passwords, so that they can log in without waiting
    Unlock {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
    },
    /// Delete a user and everything that belongs to them except audit events; this cannot be undone
    Delete {
        /// The user's auth_token, email or username
        #[arg(value_parser = parse_user_key)]
        user: UserKey,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
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
    /// Returns the kind of the audit event if the command is refused.
    pub(super) const fn refusal(&self) -> AuditKind {
        match self {
            Self::List(_) | Self::Show { .. } => AuditKind::SensitiveReadFail,
            Self::Verify { .. } | Self::Unverify { .. } => AuditKind::UserUpdateFail,
            Self::Disable { .. } => AuditKind::UserDisableFail,
            Self::Enable { .. } => AuditKind::UserEnableFail,
            Self::EndSessions { .. } => AuditKind::SessionExpireFail,
            Self::ResetPassword { .. } => AuditKind::AuthnTokenCreateFail,
            Self::Unlock { .. } => AuditKind::AuthnLoginUnlockFail,
            Self::Delete { .. } => AuditKind::UserDeleteFail,
        }
    }
}
