//! What is written down of decisions about authentication, authorization and accounts.

use std::{fmt, net::IpAddr, sync::Arc};

use uuid::Uuid;

use super::{AuthToken, ClientAddress, ClientAgent, Timestamp};

/// Declares the kinds with their names.
macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $kind:ident = $name:literal, )+) => {
        /// What happened, by the names of OWASP's Application Logging Vocabulary; where that has a name for what is done and none
        /// for what is refused, the name ends in `_fail`, as its `authn_password_change_fail` does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AuditKind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl AuditKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// The kind of this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
            }
        }
    };
}

kinds! {
    /// The right password of a verified account.
    AuthnLoginSuccess = "authn_login_success",
    /// A wrong password, an email that nobody has, or an account that is not verified or disabled.
    AuthnLoginFail = "authn_login_fail",
    /// An attempt that came too early, of an account, an address or all together; its password was not looked at.
    AuthnLoginFailMax = "authn_login_fail_max",
    /// An operator ended the waits of an account. (The vocabulary has `authn_login_lock` only.)
    AuthnLoginUnlock = "authn_login_unlock",
    /// A password was changed, or reset by a mailed link.
    AuthnPasswordChange = "authn_password_change",
    /// A change of a password that was refused.
    AuthnPasswordChangeFail = "authn_password_change_fail",
    /// A link was mailed because somebody asked for it.
    AuthnTokenCreated = "authn_token_created",
    /// Somebody asked for a link, and there was nobody to mail one to.
    AuthnTokenCreateFail = "authn_token_create_fail",
    /// A refresh token was used again after its successor had been: its session has ended.
    AuthnTokenReuse = "authn_token_reuse",
    /// A refresh token was replaced.
    SessionRenewed = "session_renewed",
    /// A refresh token that is none, or whose session had ended.
    SessionRenewFail = "session_renew_fail",
    /// One session was ended, or all of a user's.
    SessionExpired = "session_expired",
    /// An operator made a key that signs access tokens.
    AuthzAdmin = "authz_admin",
    /// A caller that is not known, or may not do what it asked for.
    AuthzFail = "authz_fail",
    /// The file of callers was read again.
    AuthzChange = "authz_change",
    /// Too many registrations, links or calls at once.
    ExcessRateLimitExceeded = "excess_rate_limit_exceeded",
    /// A registration.
    UserCreated = "user_created",
    /// A registration that was refused.
    UserCreateFail = "user_create_fail",
    /// An email was verified or changed, or a username changed.
    UserUpdated = "user_updated",
    /// A link that verified or changed nothing, or another change that was refused.
    UserUpdateFail = "user_update_fail",
    /// An operator disabled an account. (The vocabulary has no name for it.)
    UserDisabled = "user_disabled",
    /// An operator enabled it again. (The vocabulary has no name for it.)
    UserEnabled = "user_enabled",
    /// An account was deleted.
    UserDeleted = "user_deleted",
    /// A deletion that was refused.
    UserDeleteFail = "user_delete_fail",
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The calling service, or what stands for it.
    pub caller: Arc<str>,
    /// The address of the connection, if there is one.
    pub peer: Option<IpAddr>,
    /// The end user's address, if the caller tells it.
    pub client: Option<ClientAddress>,
    /// The end user's program, if the caller tells it.
    pub agent: Option<ClientAgent>,
    /// The id of the call, as the log has it.
    pub request_id: Option<Uuid>,
}

impl Origin {
    /// Something on this machine that has no connection, such as the command line.
    #[must_use]
    pub fn local(caller: &str) -> Self {
        Self { caller: caller.into(), peer: None, client: None, agent: None, request_id: None }
    }
}

/// One decision. Holds no secret, and of a person only their `auth_token` and where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// When; of several alike, the first.
    pub at: Timestamp,
    /// What.
    pub kind: AuditKind,
    /// Why it was refused, as the caller was told; nothing for what was done.
    pub reason: Option<&'static str>,
    /// Whom it is about, if that is an account.
    pub user: Option<AuthToken>,
    /// What was asked for, where the kind does not say it: a method, the names of callers.
    pub resource: Option<String>,
    /// Who asked.
    pub origin: Origin,
    /// How many alike came within a moment.
    pub count: u32,
}

impl AuditEvent {
    /// Something that was done.
    #[must_use]
    pub const fn new(at: Timestamp, kind: AuditKind, origin: Origin) -> Self {
        Self { at, kind, reason: None, user: None, resource: None, origin, count: 1 }
    }

    /// The same, about this user.
    #[must_use]
    pub const fn about(mut self, user: Option<AuthToken>) -> Self {
        self.user = user;
        self
    }

    /// The same, about this part of it: what the kind does not say.
    #[must_use]
    pub fn of(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// The same, refused for this reason.
    #[must_use]
    pub const fn refused(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Whether the other says the same but for its time and its call.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let said =
            |event: &Self| (event.kind, event.reason, event.user, event.origin.peer, event.origin.client);
        said(self) == said(other)
            && self.origin.caller == other.origin.caller
            && self.resource == other.resource
            && self.origin.agent == other.origin.agent
    }
}
