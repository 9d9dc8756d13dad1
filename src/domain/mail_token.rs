//! The secret in a mailed link, and what is kept of it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// 256 random bits that a mailed link carries; whoever has it may use it once.
#[derive(Clone)]
pub struct MailToken([u8; 32]);

/// The text is not a token that this service can have mailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the 43 characters that stand in the link")]
pub struct InvalidMailToken;

impl MailToken {
    /// A new token from 32 bytes of the system's generator.
    #[must_use]
    pub const fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the text of a link: base64url without padding, 43 characters.
    ///
    /// # Errors
    /// [`InvalidMailToken`] for anything else, also for the three other spellings of the last character, so that one token
    /// has one text.
    pub fn parse(text: &str) -> Result<Self, InvalidMailToken> {
        if text.len() != 43 {
            return Err(InvalidMailToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidMailToken)?;
        bytes.try_into().map(Self).map_err(|_| InvalidMailToken)
    }

    /// The text for a link: base64url without padding, 43 characters. For the mail only.
    #[must_use]
    pub fn to_link_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The secret itself, for sealing.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the database keeps: the SHA-256 of the bytes. Enough for 256 random bits; nothing slower is needed.
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

/// The SHA-256 of a [`MailToken`]: finds the token's row, and cannot be turned back into the link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MailTokenDigest([u8; 32]);

impl MailTokenDigest {
    /// The digest that the database holds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes for the database.
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

/// What a mailed token may be used for; a token is good for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailTokenPurpose {
    /// To show that the reader of the mail owns the address.
    VerifyEmail,
    /// To choose a new password without the old one.
    ResetPassword,
    /// To make the address that it was mailed to that of the account.
    ChangeEmail,
}

/// The text names no purpose that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown purpose of a mailed token")]
pub struct UnknownPurpose;

impl MailTokenPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::VerifyEmail, Self::ResetPassword, Self::ChangeEmail];

    /// The name in the database; stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
            Self::ChangeEmail => "change_email",
        }
    }

    /// The last part of the path of its links, and the page that stands there.
    #[must_use]
    pub const fn page(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify",
            Self::ResetPassword => "reset-password",
            Self::ChangeEmail => "confirm-email",
        }
    }

    /// Reads the name in the database.
    ///
    /// # Errors
    /// [`UnknownPurpose`] for any other text, as a later release may have written.
    pub fn parse(text: &str) -> Result<Self, UnknownPurpose> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(UnknownPurpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_link_reads_back() {
        let token = MailToken::from_random([0xfb; 32]);
        let text = token.to_link_text();
        assert_eq!(text.len(), 43);
        assert_eq!(MailToken::parse(&text).unwrap().as_bytes(), token.as_bytes());
    }

    #[test]
    fn one_token_has_one_text() {
        let text = MailToken::from_random([0; 32]).to_link_text();
        for last in ['B', 'C', 'D'] {
            let other = format!("{}{last}", &text[..42]);
            assert!(MailToken::parse(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn what_was_never_mailed_is_refused() {
        let text = MailToken::from_random([0xff; 32]).to_link_text();
        let standard_alphabet = text.replace('_', "/");
        let padded = format!("{text}=");
        let uuid = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";
        for text in ["", &text[..42], &standard_alphabet, &padded, uuid, &"é".repeat(43), &"\0".repeat(43)] {
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
    fn purposes_read_back_and_others_are_refused() {
        for purpose in MailTokenPurpose::ALL {
            assert_eq!(MailTokenPurpose::parse(purpose.as_str()), Ok(purpose));
        }
        assert_eq!(MailTokenPurpose::parse("VERIFY_EMAIL"), Err(UnknownPurpose));
    }
}
