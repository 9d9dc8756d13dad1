//! The identifier of a user, which never changes.

use std::fmt;

use uuid::{Builder, Uuid};

/// The identifier of a user in every part of Kairos: a random UUID that is assigned once, at registration.
///
/// It is an identifier and no credential: it is sent in the clear and grants no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthToken(Uuid);

/// The text is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID: 32 hexadecimal digits, with or without hyphens")]
pub struct InvalidAuthToken;

impl AuthToken {
    /// Creates a token (UUID v4) from 16 random bytes, of which 122 bits stay random.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Reads 32 hexadecimal digits in upper or lower case, with the usual four hyphens or with none, as
    /// Django's `char(32)`.
    ///
    /// Accepts every UUID version, because imported tokens must be kept as they are.
    ///
    /// # Errors
    /// [`InvalidAuthToken`] for any other text, also for one with braces, `urn:uuid:` or surrounding spaces.
    pub fn parse(text: &str) -> Result<Self, InvalidAuthToken> {
        parse_uuid(text).map(Self).ok_or(InvalidAuthToken)
    }

    /// Wraps a UUID from the database or from an import.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Returns the UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

/// The form used on the wire: lower case, with hyphens.
impl fmt::Display for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Reads a UUID of 32 digits, or of 32 digits and four hyphens. The length check excludes the two other forms
/// that the library accepts.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    match text.len() {
        32 | 36 => Uuid::try_parse(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";

    #[test]
    fn every_spelling_of_one_uuid_is_one_token() {
        let token = AuthToken::parse(TEXT).unwrap();
        assert_eq!(AuthToken::parse(&TEXT.to_uppercase()), Ok(token));
        assert_eq!(AuthToken::parse(&TEXT.replace('-', "")), Ok(token));
        assert_eq!(token.to_string(), TEXT);
    }

    #[test]
    fn a_new_token_is_a_version_4_uuid() {
        let token = AuthToken::from_random([0xff; 16]);
        assert_eq!(token.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(token.as_uuid().get_version_num(), 4);
    }

    #[test]
    fn imported_uuids_of_other_versions_are_read() {
        for text in ["00000000-0000-0000-0000-000000000000", "c232ab00-9414-11ec-b3c8-9f6bdeced846"] {
            assert_eq!(AuthToken::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let braced = format!("{{{TEXT}}}");
        let urn = format!("urn:uuid:{TEXT}");
        let spaced = format!(" {TEXT}");
        let with_nul = format!("{}\0", &TEXT[..35]);
        let moved_hyphen = "3fbf270-2352c-4d48-a5e5-56a4d16d9f56";
        let fullwidth = "３fbf2702352c4d48a5e556a4d16d9f56";
        for text in
            ["", "-", "abc", &braced, &urn, &spaced, &with_nul, moved_hyphen, fullwidth, &"é".repeat(16)]
        {
            assert_eq!(AuthToken::parse(text), Err(InvalidAuthToken), "{text:?}");
        }
    }
}
