//! The events of the audit trail: decisions about authentication, authorization and accounts.

use std::{fmt, net::IpAddr, sync::Arc};

use uuid::Uuid;

use super::{AuthToken, CallNote, ClientAddress, ClientAgent, Timestamp};

/// Declares the kinds with their names.
macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $kind:ident = $name:literal, )+) => {
        /// What happened. The names are those of OWASP's Application Logging Vocabulary. Where it has a name
        /// for an action but none for the refusal of that action, the name ends in `_fail`, like its
        /// `authn_password_change_fail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AuditKind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl AuditKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Returns the name of this kind.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// Returns the kind with this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
            }
        }
    };
}

kinds! {
    /// A login with the right password of a verified account that is not disabled.
    AuthnLoginSuccess = "authn_login_success",
    /// A wrong password, an unknown email, or an account that is not verified or is disabled.
    AuthnLoginFail = "authn_login_fail",
    /// A password attempt that a limit refused: of the account, of the client address or of all accounts
    /// together. The password was not checked.
    AuthnLoginFailMax = "authn_login_fail_max",
    /// An operator cleared the failed attempts of an account. (The vocabulary has only `authn_login_lock`.)
    AuthnLoginUnlock = "authn_login_unlock",
    /// Clearing the failed attempts of an account was refused.
    AuthnLoginUnlockFail = "authn_login_unlock_fail",
    /// A password was changed, or reset by a mailed link.
    AuthnPasswordChange = "authn_password_change",
    /// A password change or reset was refused.
    AuthnPasswordChangeFail = "authn_password_change_fail",
    /// A link was created because it was requested.
    AuthnTokenCreated = "authn_token_created",
    /// A link was requested, but no user matched the request, or the request was refused or failed.
    AuthnTokenCreateFail = "authn_token_create_fail",
    /// A refresh token that had been replaced was used again: its session has been revoked.
    AuthnTokenReuse = "authn_token_reuse",
    /// A refresh token was replaced.
    SessionRenewed = "session_renewed",
    /// A refresh token was refused: it is unknown or another caller's, or its session has expired or was
    /// revoked.
    SessionRenewFail = "session_renew_fail",
    /// One session, or all sessions of a user, were revoked.
    SessionExpired = "session_expired",
    /// A revocation was refused, or there was no session to revoke.
    SessionExpireFail = "session_expire_fail",
    /// An operator created a key that signs access tokens, or changed the keys that encrypt stored secrets.
    AuthzAdmin = "authz_admin",
    /// A change of such keys was refused.
    AuthzAdminFail = "authz_admin_fail",
    /// A caller is unknown or is not authorized for its request, or an access token is invalid.
    AuthzFail = "authz_fail",
    /// The callers file was reloaded.
    AuthzChange = "authz_change",
    /// A request was malformed: a field, the metadata, the message or the method.
    InputValidationFail = "input_validation_fail",
    /// A caller read the data of users, or an operator the audit trail.
    SensitiveRead = "sensitive_read",
    /// A read of user data was refused.
    SensitiveReadFail = "sensitive_read_fail",
    /// Too many registrations, requested links, changes of an account, new passwords for one link or
    /// concurrent calls, or a queue is full.
    ExcessRateLimitExceeded = "excess_rate_limit_exceeded",
    /// A user was registered or imported.
    UserCreated = "user_created",
    /// A registration was refused.
    UserCreateFail = "user_create_fail",
    /// An email was changed, verified or marked as not verified; a username was changed; or an import changed
    /// users.
    UserUpdated = "user_updated",
    /// A link had no effect, or another change was refused.
    UserUpdateFail = "user_update_fail",
    /// An operator disabled an account. (The vocabulary has no name for it.)
    UserDisabled = "user_disabled",
    /// Disabling an account was refused.
    UserDisableFail = "user_disable_fail",
    /// An operator enabled an account again. (The vocabulary has no name for it.)
    UserEnabled = "user_enabled",
    /// Enabling an account was refused.
    UserEnableFail = "user_enable_fail",
    /// An account was deleted.
    UserDeleted = "user_deleted",
    /// A deletion was refused.
    UserDeleteFail = "user_delete_fail",
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Caller name in the audit trail for a caller that is not authenticated.
pub const NOBODY: &str = "nobody";

/// Caller name in the audit trail for a button press on one of the pages.
pub const PAGES: &str = "pages";

/// The caller of an operation and the addresses it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name of the calling service, or a fixed name such as `command-line`.
    pub caller: Arc<str>,
    /// The address of the connection, if there is one.
    pub peer: Option<IpAddr>,
    /// The end user's address, if the caller reports it.
    pub client: Option<ClientAddress>,
    /// The end user's program, if the caller reports it.
    pub agent: Option<ClientAgent>,
    /// The id of the call, as in the log.
    pub request_id: Option<Uuid>,
    /// What is known about the call so far.
    pub note: CallNote,
}

impl Origin {
    /// Creates the origin of a part of this machine without a connection, such as the command line.
    #[must_use]
    pub fn local(caller: &str) -> Self {
        Self {
            caller: caller.into(),
            peer: None,
            client: None,
            agent: None,
            request_id: None,
            note: CallNote::default(),
        }
    }

    /// False if the caller did not authenticate: it is unknown, or a visitor of the pages. True for a client
    /// of a service without a callers file, which needs no authentication.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        !matches!(&*self.caller, NOBODY | PAGES)
    }
}

/// One decision. It contains no secret, and identifies a user only by the `auth_token`, the addresses and the
/// program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// The time; that of the first, if several equal events were merged.
    pub at: Timestamp,
    /// The kind of event.
    pub kind: AuditKind,
    /// The reason of a refusal: the one that the caller got, or one that no caller gets because the response
    /// must not show it. `None` for a change that was made, and for a read.
    pub reason: Option<&'static str>,
    /// The user that the event is about, if there is one.
    pub user: Option<AuthToken>,
    /// The target, where the kind does not determine it: for example a method, or the names of callers.
    pub resource: Option<String>,
    /// The origin of the operation.
    pub origin: Origin,
    /// The number of equal events that were merged into this one.
    pub count: u32,
}

impl AuditEvent {
    /// Creates an event without user, resource and reason of refusal.
    #[must_use]
    pub const fn new(at: Timestamp, kind: AuditKind, origin: Origin) -> Self {
        Self { at, kind, reason: None, user: None, resource: None, origin, count: 1 }
    }

    /// Sets the user that the event is about.
    #[must_use]
    pub const fn with_user(mut self, user: Option<AuthToken>) -> Self {
        self.user = user;
        self
    }

    /// Sets the `resource`: what the event is about if its kind does not say it, such as a field or a
    /// session.
    #[must_use]
    pub fn with_resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Sets the reason of a refusal.
    #[must_use]
    pub const fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_equal_whatever_their_notes_say() {
        let recorded = Origin { note: CallNote::begin(), ..Origin::local("bff") };
        recorded.note.set_recorded();
        assert_eq!(recorded, Origin::local("bff"));
    }

    #[test]
    fn unknown_callers_and_visitors_of_the_pages_are_not_authenticated() {
        for (caller, is_authenticated) in [(NOBODY, false), (PAGES, false), ("bff", true)] {
            assert_eq!(Origin::local(caller).is_authenticated(), is_authenticated, "{caller}");
        }
    }

    #[test]
    fn a_kind_is_displayed_by_its_name() {
        assert_eq!(AuditKind::UserDeleted.to_string(), "user_deleted");
    }
}
