//! The rights of a caller: the methods that it may call and the user fields that it may see.

/// The rights of a caller; the default has none.
#[derive(Debug, Default)]
pub(super) struct Rights {
    pub(super) methods: Vec<MethodPattern>,
    pub(super) fields: UserFields,
    pub(super) tells_client: bool,
    pub(super) receives_mail_tokens: bool,
    /// The maximum number of calls in flight.
    pub(super) calls_max: usize,
}

/// A pattern for methods: `Service/Method`, `Service/*` or `*`, without the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MethodPattern(String);

impl MethodPattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// True if the pattern matches the method with this path, `/package.Service/Method`.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return false;
        };
        if self.0 == "*" {
            return true;
        }
        let Some((wanted, wanted_method)) = self.0.split_once('/') else { return false };
        let is_service =
            service.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        is_service && (wanted_method == "*" || wanted_method == method)
    }
}

/// The fields of `User` that a caller may see. `auth_token` is always visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one flag per field of the message")]
pub struct UserFields {
    /// `username`
    pub username: bool,
    /// `email`
    pub email: bool,
    /// `is_verified`
    pub is_verified: bool,
    /// `created_at`
    pub created_at: bool,
    /// `updated_at`
    pub updated_at: bool,
    /// `state`
    pub state: bool,
}

impl UserFields {
    /// Every field.
    pub const ALL: Self = Self {
        username: true,
        email: true,
        is_verified: true,
        created_at: true,
        updated_at: true,
        state: true,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_one_method_one_service_or_everything() {
        let path = "/kairos.identity.v1.IdentityService/Login";
        for (pattern, matches) in [
            ("*", true),
            ("IdentityService/*", true),
            ("IdentityService/Login", true),
            ("IdentityService/login", false),
            ("IdentityService/Log", false),
            ("Identity/*", false),
            ("Service/*", false),
            ("Login", false),
        ] {
            assert_eq!(MethodPattern::new(pattern).matches(path), matches, "{pattern}");
        }
        assert!(!MethodPattern::new("IdentityService/*").matches("IdentityService/Login"));
    }
}
