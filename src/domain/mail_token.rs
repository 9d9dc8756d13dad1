//! The secret in a mailed link, and its digest in the database.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// The 256 random bits of a mailed link. The holder may use them once.
#[derive(Clone)]
pub struct MailToken([u8; 32]);

/// The number of characters of a token in base64url without padding.
const TEXT_CHARACTERS: usize = 43;

/// The text is not in the form of a token that this service mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the {TEXT_CHARACTERS} characters of the token in the link")]
pub struct InvalidMailToken;

impl MailToken {
    /// Creates a token from 32 bytes of the system's random generator.
    #[must_use]
    pub const fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the text of a link, in the form of [`MailToken::to_link_text`].
    ///
    /// # Errors
    /// [`InvalidMailToken`] for any other text. The decoder refuses a last character whose two unused bits
    /// are not zero, so a token has exactly one text.
    pub fn parse(text: &str) -> Result<Self, InvalidMailToken> {
        if text.len() != TEXT_CHARACTERS {
            return Err(InvalidMailToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidMailToken)?;
        bytes.try_into().map(Self).map_err(|_| InvalidMailToken)
    }

    /// Returns the text for a link: base64url without padding. For the mail only.
    #[must_use]
    pub fn to_link_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Returns the secret, for encryption.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the SHA-256 of the bytes, which the database stores. For 256 random bits no slower hash is
    /// needed.
    #[must_use]
    pub fn digest(&self) -> MailTokenDigest {
        MailTokenDigest(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for MailToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailToken(..)")
    }
}

/// The SHA-256 of a [`MailToken`]: finds the row of the token, and cannot be converted back into the link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MailTokenDigest([u8; 32]);

impl MailTokenDigest {
    /// Wraps a digest from the database.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes for the database.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MailTokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailTokenDigest(..)")
    }
}

/// The only purpose that a mailed token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailTokenPurpose {
    /// Verifies that the reader of the mail owns the address.
    VerifyEmail,
    /// Allows choosing a new password without the old one.
    ResetPassword,
    /// Changes the account's email to the address that the link was mailed to.
    ChangeEmail,
    /// Undoes a change of the account's email: restores the address that the link was mailed to.
    UndoEmailChange,
}

/// The text is not a purpose in this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mail token purpose")]
pub struct UnknownPurpose;

impl MailTokenPurpose {
    /// All purposes.
    pub const ALL: [Self; 4] =
        [Self::VerifyEmail, Self::ResetPassword, Self::ChangeEmail, Self::UndoEmailChange];

    /// Returns the name in the database. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
            Self::ChangeEmail => "change_email",
            Self::UndoEmailChange => "undo_email_change",
        }
    }

    /// Returns the last segment of the path of its links, which is also the name of the page there.
    #[must_use]
    pub const fn page(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify",
            Self::ResetPassword => "reset-password",
            Self::ChangeEmail => "confirm-email",
            Self::UndoEmailChange => "undo-email-change",
        }
    }

    /// Reads the name in the database.
    ///
    /// # Errors
    /// [`UnknownPurpose`] for any other text, such as one that a later release has written.
    pub fn parse(text: &str) -> Result<Self, UnknownPurpose> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(UnknownPurpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_link_round_trips() {
        let token = MailToken::from_random([0xfb; 32]);
        let text = token.to_link_text();
        assert_eq!(text.len(), TEXT_CHARACTERS);
        assert_eq!(MailToken::parse(&text).unwrap().as_bytes(), token.as_bytes());
    }

    #[test]
    fn each_purpose_has_a_name_and_a_page_of_its_own() {
        let pages = MailTokenPurpose::ALL.map(MailTokenPurpose::page);
        assert_eq!(pages, ["verify", "reset-password", "confirm-email", "undo-email-change"]);
        for purpose in MailTokenPurpose::ALL {
            assert_eq!(MailTokenPurpose::parse(purpose.as_str()).unwrap(), purpose);
        }
        assert!(MailTokenPurpose::parse("verify").is_err());
    }

    #[test]
    fn one_token_has_one_text() {
        let text = MailToken::from_random([0; 32]).to_link_text();
        for last in ['B', 'C', 'D'] {
            let other = format!("{}{last}", &text[..TEXT_CHARACTERS - 1]);
            assert!(MailToken::parse(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn texts_in_another_form_are_refused() {
        let text = MailToken::from_random([0xff; 32]).to_link_text();
        let standard_alphabet = text.replace('_', "/");
        let padded = format!("{text}=");
        let uuid = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";
        for text in [
            "",
            &text[..TEXT_CHARACTERS - 1],
            &standard_alphabet,
            &padded,
            uuid,
            &"é".repeat(TEXT_CHARACTERS),
            &"\0".repeat(TEXT_CHARACTERS),
        ] {
            assert_eq!(MailToken::parse(text).err(), Some(InvalidMailToken), "{text:?}");
        }
    }

    #[test]
    fn the_digest_is_sha_256_of_the_bytes() {
        let hex =
            MailToken::from_random([0; 32]).digest().as_bytes().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let token = MailToken::from_random([0x41; 32]);
        let shown = format!("{token:?} {:?}", token.digest());
        assert_eq!(shown, "MailToken(..) MailTokenDigest(..)");
    }

    #[test]
    fn purpose_names_round_trip_and_others_are_refused() {
        for purpose in MailTokenPurpose::ALL {
            assert_eq!(MailTokenPurpose::parse(purpose.as_str()), Ok(purpose));
        }
        assert_eq!(MailTokenPurpose::parse("VERIFY_EMAIL"), Err(UnknownPurpose));
    }
}
