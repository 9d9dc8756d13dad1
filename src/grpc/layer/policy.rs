//! What the layers must know about each method: whether it is a look-up, and what the audit trail records of
//! it in addition to the events of its operation.

use crate::domain::AuditKind as Kind;

/// The path prefix of the methods of the API.
const API: &str = "/kairos.identity.v1.";

/// What the layers record about a call of a method if its operation has recorded no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// The kind of a refusal or failure that has no kind of its own; `None` for a method of another API, such
    /// as health, of which only the decisions of the layers are recorded.
    pub(super) refusal: Option<Kind>,
    /// The kind of a success; `None` if it is not recorded, or the operation records all that it changes.
    pub(super) success: Option<Kind>,
    /// True for the methods that the agent calls for every message. They run on the thread of their
    /// connection, and their successes and failures must cost nothing: only refusals are recorded.
    pub(super) is_look_up: bool,
}

impl Policy {
    /// Returns the policy of the method with this path.
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix(API) {
            // A method without a row is recorded in full.
            Some(method) => {
                row(method).unwrap_or_else(|| recorded(Kind::SensitiveReadFail, Kind::SensitiveRead))
            }
            None => Self { refusal: None, success: None, is_look_up: false },
        }
    }
}

/// A method whose successes are recorded with this kind, unless the operation has recorded what it did.
const fn recorded(refusal: Kind, success: Kind) -> Policy {
    Policy { refusal: Some(refusal), success: Some(success), is_look_up: false }
}

/// A method whose operation records what it changes. A success that changes nothing is no event.
const fn by_operation(refusal: Kind) -> Policy {
    Policy { refusal: Some(refusal), success: None, is_look_up: false }
}

/// A method whose successes are not recorded.
const fn unrecorded(refusal: Kind) -> Policy {
    Policy { refusal: Some(refusal), success: None, is_look_up: false }
}

/// Returns the policy of a method of the API.
fn row(method: &str) -> Option<Policy> {
    Some(match method {
        // A repeated registration returns the user of the first one.
        "IdentityService/Register" => recorded(Kind::UserCreateFail, Kind::SensitiveRead),
        "IdentityService/VerifyEmail"
        | "AccountService/UpdateAccount"
        | "AccountService/RequestEmailChange"
        | "AccountService/ConfirmEmailChange"
        | "AccountService/UndoEmailChange" => by_operation(Kind::UserUpdateFail),
        // The operation goes on after the response, and then records what it did.
        "IdentityService/ResendVerificationEmail" | "AccountService/RequestPasswordReset" => {
            by_operation(Kind::AuthnTokenCreateFail)
        }
        "IdentityService/Login" => by_operation(Kind::AuthnLoginFail),
        // One look-up for each message: tens of thousands a second.
        "IdentityService/ResolveToken" | "IdentityService/ResolveTokens" => {
            Policy { is_look_up: true, ..unrecorded(Kind::SensitiveReadFail) }
        }
        "IdentityService/FindUser"
        | "AdminService/GetUser"
        | "AdminService/ListUsers"
        | "AdminService/ListAuditEvents" => recorded(Kind::SensitiveReadFail, Kind::SensitiveRead),
        // A repeated refresh returns the same token again.
        "SessionService/RefreshSession" => recorded(Kind::SessionRenewFail, Kind::SessionRenewed),
        "SessionService/Logout" | "SessionService/RevokeSession" | "SessionService/RevokeAllSessions" => {
            by_operation(Kind::SessionExpireFail)
        }
        // Users read their own data. A service introspects the token of each call that it receives. The keys
        // are public.
        "SessionService/ListSessions"
        | "SessionService/IntrospectToken"
        | "SessionService/GetJwks"
        | "AccountService/GetAccount" => unrecorded(Kind::SensitiveReadFail),
        "AccountService/ChangePassword" | "AccountService/ResetPassword" => {
            by_operation(Kind::AuthnPasswordChangeFail)
        }
        "AccountService/DeleteAccount" => by_operation(Kind::UserDeleteFail),
        // An operator's call that changes nothing has read the state of the user.
        "AdminService/SetVerified" => recorded(Kind::UserUpdateFail, Kind::SensitiveRead),
        "AdminService/DisableUser" => recorded(Kind::UserDisableFail, Kind::SensitiveRead),
        "AdminService/EnableUser" => recorded(Kind::UserEnableFail, Kind::SensitiveRead),
        "AdminService/UnlockUser" => recorded(Kind::AuthnLoginUnlockFail, Kind::SensitiveRead),
        "AdminService/DeleteUser" => recorded(Kind::UserDeleteFail, Kind::SensitiveRead),
        "AdminService/RevokeUserSessions" => recorded(Kind::SessionExpireFail, Kind::SensitiveRead),
        "AdminService/StartPasswordReset" => recorded(Kind::AuthnTokenCreateFail, Kind::SensitiveRead),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::all_method_paths, *};

    #[test]
    fn every_method_of_the_api_has_a_row() {
        let paths = all_method_paths();
        let methods = paths.iter().filter_map(|path| path.strip_prefix(API));
        let missing: Vec<_> = methods.filter(|method| row(method).is_none()).collect();
        assert_eq!(missing, [""; 0]);
    }
}
