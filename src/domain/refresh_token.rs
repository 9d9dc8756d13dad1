//! What a session goes on with.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Marks a refresh token, for people and for scanners of leaked secrets.
const PREFIX: &str = "krt_";

const FAMILY_BYTES: usize = 16;

/// A secret that is replaced at every use: 256 random bits, beside 128 that all refresh tokens of one session share.
///
/// The shared ones, the family, are what tells an old token of a session from one that never was: so reuse is noticed however old the
/// token is, and a session is one row.
#[derive(Clone)]
pub struct RefreshToken {
    family: [u8; FAMILY_BYTES],
    secret: [u8; 32],
}

/// The text is not a refresh token that this service can have given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a refresh token, as Login gives it: {PREFIX} and 64 characters")]
pub struct InvalidRefreshToken;

impl RefreshToken {
    /// The first token of a session, from bytes of the system's generator.
    #[must_use]
    pub const fn from_random(family: [u8; FAMILY_BYTES], secret: [u8; 32]) -> Self {
        Self { family, secret }
    }

    /// Reads the text of a token: `krt_` and 64 characters of base64url.
    ///
    /// # Errors
    /// [`InvalidRefreshToken`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidRefreshToken> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() == 64);
        let bytes = URL_SAFE_NO_PAD.decode(encoded.ok_or(InvalidRefreshToken)?);
        let bytes = bytes.map_err(|_| InvalidRefreshToken)?;
        let (family, secret) = bytes.split_first_chunk().ok_or(InvalidRefreshToken)?;
        Ok(Self { family: *family, secret: secret.try_into().map_err(|_| InvalidRefreshToken)? })
    }

    /// The token itself: for the caller who logged the user in.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&self.family[..], &self.secret].concat()))
    }

    /// The token that replaces this one: the HMAC-SHA256 of a random salt under this one's secret.
    ///
    /// It can be told again to who shows this token, if the answer was lost, and to nobody else: the salt is in the database, and the
    /// secret is not.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn successor(&self, salt: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.update(salt);
        Self { family: self.family, secret: mac.finalize().into_bytes().into() }
    }

    /// What the database keeps of it. Unsalted and fast: 256 random bits cannot be guessed.
    #[must_use]
    pub fn digest(&self) -> RefreshTokenDigest {
        let digest = Sha256::new().chain_update(self.family).chain_update(self.secret);
        RefreshTokenDigest(digest.finalize().into())
    }

    /// What the database finds the session by, for every token that it ever had.
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
    /// The 32 bytes for the database.
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
    fn a_token_reads_back() {
        let text = token().expose();
        assert_eq!(text.len(), 68);
        assert_eq!(RefreshToken::parse(&text).unwrap().digest(), token().digest());
    }

    #[test]
    fn what_was_never_given_out_is_refused() {
        let text = token().expose();
        let mail_token = "A".repeat(43);
        for faulty in
            ["", &text[4..], &text[..67], &format!("{text}A"), &text.replace("krt_", "kst_"), &mail_token]
        {
            assert!(RefreshToken::parse(faulty).is_err(), "{faulty}");
        }
    }

    #[test]
    fn a_successor_is_of_the_family_and_known_from_token_and_salt_alone() {
        let (one, again, other) =
            (token().successor(&[3; 32]), token().successor(&[3; 32]), token().successor(&[4; 32]));
        assert_eq!(one.digest(), again.digest());
        assert_ne!(one.digest(), other.digest());
        assert_ne!(one.digest(), token().digest());
        assert_eq!(one.family_digest(), token().family_digest());
        // RFC 4231 has no such vector; this one is Python's hmac.new(b"\2" * 32, b"\3" * 32, "sha256").
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
