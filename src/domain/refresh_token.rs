//! The secret that continues a session.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Prefix of every refresh token, for readers and for scanners that find leaked secrets.
const PREFIX: &str = "krt_";

/// Number of random bytes that all refresh tokens of a session share.
const FAMILY_BYTES: usize = 16;

/// The number of characters after the prefix: the 16 bytes of the family and the 32 of the secret in
/// base64url.
const ENCODED_CHARACTERS: usize = 64;

/// A secret that is replaced at every use: 256 random bits, and 128 further bits that all refresh tokens of
/// one session share.
///
/// The shared bits, the family, distinguish an old token of a session from a token that never existed. So the
/// reuse of a token is detected however old the token is, and a session needs only one row.
#[derive(Clone)]
pub struct RefreshToken {
    family: [u8; FAMILY_BYTES],
    secret: [u8; 32],
}

/// The text is not in the form of a refresh token that this service issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a refresh token as Login returns it: {PREFIX} and {ENCODED_CHARACTERS} characters")]
pub struct InvalidRefreshToken;

impl RefreshToken {
    /// Creates the first token of a session from bytes of the system's random generator.
    #[must_use]
    pub const fn from_random(family: [u8; FAMILY_BYTES], secret: [u8; 32]) -> Self {
        Self { family, secret }
    }

    /// Reads the text of a token, in the form of [`RefreshToken::expose`].
    ///
    /// # Errors
    /// [`InvalidRefreshToken`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidRefreshToken> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() == ENCODED_CHARACTERS);
        let bytes = URL_SAFE_NO_PAD.decode(encoded.ok_or(InvalidRefreshToken)?);
        let bytes = bytes.map_err(|_| InvalidRefreshToken)?;
        let (family, secret) = bytes.split_first_chunk().ok_or(InvalidRefreshToken)?;
        Ok(Self { family: *family, secret: secret.try_into().map_err(|_| InvalidRefreshToken)? })
    }

    /// Returns the text of the token, for the caller that logged the user in.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&self.family[..], &self.secret].concat()))
    }

    /// Returns the token that replaces this one: the HMAC-SHA256 of a random salt, keyed with the secret of
    /// this token.
    ///
    /// If the response was lost, the server can compute the successor again for a caller that sends this
    /// token, and for no other: the salt is in the database, and the secret is not.
    ///
    /// # Panics
    /// Never: HMAC accepts a key of any length.
    #[must_use]
    pub fn successor(&self, salt: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC accepts a key of any length");
        mac.update(salt);
        Self { family: self.family, secret: mac.finalize().into_bytes().into() }
    }

    /// Returns the digest that the database stores. Unsalted and fast, because 256 random bits cannot be
    /// guessed.
    #[must_use]
    pub fn digest(&self) -> RefreshTokenDigest {
        let digest = Sha256::new().chain_update(self.family).chain_update(self.secret);
        RefreshTokenDigest(digest.finalize().into())
    }

    /// Returns the digest by which the database finds the session, the same for every token of the session.
    #[must_use]
    pub fn family_digest(&self) -> RefreshTokenDigest {
        RefreshTokenDigest(Sha256::digest(self.family).into())
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

/// The SHA-256 of a [`RefreshToken`] or of its family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefreshTokenDigest([u8; 32]);

impl RefreshTokenDigest {
    /// Returns the 32 bytes for the database.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RefreshTokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshTokenDigest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> RefreshToken {
        RefreshToken::from_random([1; 16], [2; 32])
    }

    #[test]
    fn the_text_of_a_token_round_trips() {
        let text = token().expose();
        assert_eq!(text.len(), PREFIX.len() + ENCODED_CHARACTERS);
        assert_eq!(RefreshToken::parse(&text).unwrap().digest(), token().digest());
    }

    #[test]
    fn malformed_texts_are_refused() {
        let text = token().expose();
        let mail_token = "A".repeat(43);
        for faulty in [
            "",
            &text[PREFIX.len()..],
            &text[..text.len() - 1],
            &format!("{text}A"),
            &text.replace("krt_", "kst_"),
            &mail_token,
        ] {
            assert!(RefreshToken::parse(faulty).is_err(), "{faulty}");
        }
    }

    #[test]
    fn a_successor_keeps_the_family_and_follows_from_token_and_salt() {
        let (one, again, other) =
            (token().successor(&[3; 32]), token().successor(&[3; 32]), token().successor(&[4; 32]));
        assert_eq!(one.digest(), again.digest());
        assert_ne!(one.digest(), other.digest());
        assert_ne!(one.digest(), token().digest());
        assert_eq!(one.family_digest(), token().family_digest());
        // RFC 4231 has no such test vector. This one was computed in Python:
        // hmac.new(b"\2" * 32, b"\3" * 32, "sha256").
        let hex = one.secret.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "f1410c0cef7a1cf42d1767f545aa4581bef24258bcf1982e652fd1666c1cf781");
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        assert_eq!(
            format!("{:?} {:?}", token(), token().digest()),
            "RefreshToken(..) RefreshTokenDigest(..)"
        );
    }
}
