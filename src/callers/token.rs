//! Service tokens, which authenticate callers.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// The prefix of a service token, by which readers and secret scanners recognize one.
pub(super) const PREFIX: &str = "kst_";

/// The prefix of a hash in text form.
const HASH_PREFIX: &str = "sha256:";

/// A service token: `kst_` and 256 random bits in base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceToken(String);

impl ServiceToken {
    /// Creates a token from 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Parses a service token. Returns `None` for any other text. The text after `kst_` is not checked.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        token.starts_with(PREFIX).then(|| Self(token.to_owned()))
    }

    /// Parses the value of an `authorization: Bearer kst_...` header (RFC 6750, section 2.1). The scheme
    /// matches in any case (RFC 9110, section 11.1). Returns `None` for any other value. The text after
    /// `kst_` is not checked.
    #[must_use]
    pub fn from_authorization(credentials: &str) -> Option<Self> {
        bearer_token(credentials).and_then(Self::parse)
    }

    /// The secret token. Print it only once, when it is created.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash that the callers file contains.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        // Unsalted and fast: 256 random bits cannot be guessed (ASVS 6.5.2).
        TokenHash(Sha256::digest(&self.0).into())
    }
}

/// Returns the token of the scheme Bearer in the value of an `authorization` header (RFC 6750, section 2.1).
/// The scheme matches in any case (RFC 9110, section 11.1). Returns `None` for any other scheme.
#[must_use]
pub fn bearer_token(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken")
    }
}

/// The SHA-256 of a [`ServiceToken`]. Its text form is `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Parses the text form; the hexadecimal digits in any case. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_parsed_only_from_a_bearer_header() {
        let token = ServiceToken::from_random([7; 32]);
        assert_eq!(token.expose().len(), 47);
        for scheme in ["Bearer", "bearer", "BEARER "] {
            let credentials = format!("{scheme} {}", token.expose());
            assert_eq!(ServiceToken::from_authorization(&credentials).as_ref(), Some(&token), "{scheme}");
        }
        let bare = token.expose().to_owned();
        for credentials in ["", "Bearer", "Bearer ", "Bearer eyJhbGciOi", &bare, &format!("Basic {bare}")] {
            assert_eq!(ServiceToken::from_authorization(credentials), None, "{credentials}");
        }
        assert!(!format!("{token:?}").contains("kst_"));
    }

    #[test]
    fn the_text_form_of_a_hash_parses_back() {
        let hash = ServiceToken::from_random([7; 32]).hash();
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        let digits = "0".repeat(64);
        for text in [
            "",
            "sha256:",
            &digits,
            "sha256:0",
            &format!("sha256:{}", "+1".repeat(32)),
            &format!("sha256:{digits}0"),
        ] {
            assert_eq!(TokenHash::parse(text), None, "{text}");
        }
    }
}
