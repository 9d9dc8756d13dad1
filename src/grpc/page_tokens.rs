//! Page tokens. Each contains the position at which the next page of a list begins; the client keeps it and
//! sends it with the next request.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    domain::Sealed,
    entropy::Entropy,
    sealing::{Purpose, SealingKeys},
};

/// A position in a list: two numbers, of which the second may be unused.
pub type PageCursor = [i64; 2];

/// The size of each half of an encrypted page token: the position (two numbers of 8 bytes), then the digest
/// of the list.
const HALF_BYTES: usize = 16;

/// The text is not a page token of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_page_token of a response to the same request")]
pub struct InvalidPageToken;

/// Creates and reads page tokens. They are encrypted, since row ids must not leave the service, and are bound
/// to one list.
#[derive(Clone)]
pub struct PageTokens {
    sealing_keys: Arc<SealingKeys>,
    entropy: Entropy,
}

impl PageTokens {
    /// Creates page tokens under this key. Instances with the same key read each other's page tokens.
    #[must_use]
    pub const fn new(sealing_keys: Arc<SealingKeys>, entropy: Entropy) -> Self {
        Self { sealing_keys, entropy }
    }

    /// Returns the page token of a position in the list that `list` describes.
    #[must_use]
    pub fn write(&self, list: &[u8], [first, second]: PageCursor) -> String {
        let mut bytes = [0; 2 * HALF_BYTES];
        let (position, digest) = bytes.split_at_mut(HALF_BYTES);
        let (first_bytes, second_bytes) = position.split_at_mut(HALF_BYTES / 2);
        first_bytes.copy_from_slice(&first.to_be_bytes());
        second_bytes.copy_from_slice(&second.to_be_bytes());
        digest.copy_from_slice(&list_digest(list));
        URL_SAFE_NO_PAD.encode(self.sealing_keys.seal(Purpose::PageToken, &bytes, &self.entropy).as_bytes())
    }

    /// Returns the position in a page token of the list that `list` describes.
    ///
    /// # Errors
    /// `InvalidPageToken` for any other text.
    pub fn read(&self, list: &[u8], text: &str) -> Result<PageCursor, InvalidPageToken> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPageToken)?;
        let bytes = self.sealing_keys.open(Purpose::PageToken, &Sealed::from_bytes(sealed));
        let bytes = bytes.map_err(|_| InvalidPageToken)?;
        // `open` succeeds only for bytes that `write` has sealed, so there are two halves.
        let (position, digest) = bytes.split_at(HALF_BYTES);
        if digest != list_digest(list) {
            return Err(InvalidPageToken);
        }
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| InvalidPageToken);
        let (first, second) = position.split_at(HALF_BYTES / 2);
        Ok([number(first)?, number(second)?])
    }
}

/// Returns the digest that binds a page token to its list: the first half of a SHA-256.
fn list_digest(list: &[u8]) -> [u8; HALF_BYTES] {
    let mut digest = [0; HALF_BYTES];
    digest.iter_mut().zip(Sha256::digest(list)).for_each(|(to, from)| *to = from);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: &str) -> PageTokens {
        let key = SealingKeys::parse(key).unwrap();
        PageTokens::new(Arc::new(key), Entropy::seeded(1))
    }

    const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    const OTHER_KEY: &str = "rs3vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";

    #[test]
    fn a_page_token_is_valid_only_for_its_list_and_key() {
        let text = tokens(KEY).write(b"users", [7, -1]);
        assert_eq!(tokens(KEY).read(b"users", &text), Ok([7, -1]));
        assert_eq!(tokens(KEY).read(b"events", &text), Err(InvalidPageToken));
        assert_eq!(tokens(OTHER_KEY).read(b"users", &text), Err(InvalidPageToken));
        for other in ["", "AA", "%", &text[1..], &format!("{text}A")] {
            assert_eq!(tokens(KEY).read(b"users", other), Err(InvalidPageToken), "{other}");
        }
    }

    #[test]
    fn two_page_tokens_of_one_position_differ() {
        let tokens = tokens(KEY);
        assert_ne!(tokens.write(b"users", [7, 0]), tokens.write(b"users", [7, 0]));
    }
}
