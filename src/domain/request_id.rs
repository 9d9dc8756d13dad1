//! The id of one registration request.

use std::fmt;

use uuid::Uuid;

use super::auth_token::parse_uuid;

/// A UUID that a caller chooses for one `Register` call, so that the server recognizes a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

/// The text is not a UUID, or the nil UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID other than the nil UUID: 32 hexadecimal digits, with or without hyphens")]
pub struct InvalidRequestId;

impl RequestId {
    /// Reads 32 hexadecimal digits in upper or lower case, with the usual four hyphens or with none.
    ///
    /// # Errors
    /// [`InvalidRequestId`] for any other text, also for one with braces or `urn:uuid:`. The nil UUID is
    /// refused too: only a caller that does not set an id sends it, and all such callers would share it.
    pub fn parse(text: &str) -> Result<Self, InvalidRequestId> {
        parse_uuid(text).filter(|uuid| !uuid.is_nil()).map(Self).ok_or(InvalidRequestId)
    }

    /// Wraps an id from the database.
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

/// Lower case, with hyphens.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_uuid_is_one_request() {
        let id = RequestId::parse("3fbf2702-352c-4d48-a5e5-56a4d16d9f56").unwrap();
        assert_eq!(RequestId::parse("3FBF2702352C4D48A5E556A4D16D9F56"), Ok(id));
        assert_eq!(id.to_string(), "3fbf2702-352c-4d48-a5e5-56a4d16d9f56");
    }

    #[test]
    fn the_nil_uuid_and_other_text_are_refused() {
        for text in ["", "once", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(RequestId::parse(text), Err(InvalidRequestId), "{text:?}");
        }
    }
}
