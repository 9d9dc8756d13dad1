//! Where the next page of a list begins, as its reader carries it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    domain::Sealed,
    entropy::Entropy,
    sealing::{Purpose, SealingKey},
};

/// A place in a list: two numbers, or one and nothing.
pub type Place = [i64; 2];

const HALF: usize = 16;

/// The text is no page token of that list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_page_token of an answer to the same request")]
pub struct InvalidPageToken;

/// Makes page tokens: sealed, since row ids never leave the service, and bound to the list that they are of.
#[derive(Clone)]
pub struct PageTokens {
    sealing_key: Arc<SealingKey>,
    entropy: Entropy,
}

impl PageTokens {
    /// Page tokens under this key, by which every instance reads those of the others.
    #[must_use]
    pub const fn new(sealing_key: Arc<SealingKey>, entropy: Entropy) -> Self {
        Self { sealing_key, entropy }
    }

    /// The token of a place in the list that `list` describes.
    #[must_use]
    pub fn write(&self, list: &[u8], [first, second]: Place) -> String {
        let mut bytes = [0; 2 * HALF];
        let (place, of) = bytes.split_at_mut(HALF);
        let (high, low) = place.split_at_mut(HALF / 2);
        high.copy_from_slice(&first.to_be_bytes());
        low.copy_from_slice(&second.to_be_bytes());
        of.copy_from_slice(&name(list));
        URL_SAFE_NO_PAD.encode(self.sealing_key.seal(Purpose::PageToken, &bytes, &self.entropy).as_bytes())
    }

    /// The place that a token of that list stands for.
    ///
    /// # Errors
    /// [`InvalidPageToken`] for any other text.
    pub fn read(&self, list: &[u8], text: &str) -> Result<Place, InvalidPageToken> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPageToken)?;
        let bytes = self.sealing_key.open(Purpose::PageToken, &Sealed::from_bytes(sealed));
        let bytes = bytes.map_err(|_| InvalidPageToken)?;
        let (place, of) = bytes.split_at(HALF);
        if of != name(list) {
            return Err(InvalidPageToken);
        }
        let number = |half: &[u8]| half.try_into().map(i64::from_be_bytes).map_err(|_| InvalidPageToken);
        let (high, low) = place.split_at(HALF / 2);
        Ok([number(high)?, number(low)?])
    }
}

/// What stands for a list in its tokens.
fn name(list: &[u8]) -> [u8; HALF] {
    let mut name = [0; HALF];
    name.iter_mut().zip(Sha256::digest(list)).for_each(|(to, from)| *to = from);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: &str) -> PageTokens {
        let key = SealingKey::from_base64(key).unwrap();
        PageTokens::new(Arc::new(key), Entropy::seeded(1))
    }

    const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    const OTHER: &str = "rs3vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";

    #[test]
    fn a_token_leads_back_into_its_own_list() {
        let text = tokens(KEY).write(b"users", [7, -1]);
        assert_eq!(tokens(KEY).read(b"users", &text), Ok([7, -1]));
        assert_eq!(tokens(KEY).read(b"events", &text), Err(InvalidPageToken));
        assert_eq!(tokens(OTHER).read(b"users", &text), Err(InvalidPageToken));
        for other in ["", "AA", "%", &text[1..], &format!("{text}A")] {
            assert_eq!(tokens(KEY).read(b"users", other), Err(InvalidPageToken), "{other}");
        }
    }

    #[test]
    fn a_token_tells_nothing_of_its_place() {
        let tokens = tokens(KEY);
        assert_ne!(tokens.write(b"users", [7, 0]), tokens.write(b"users", [7, 0]));
    }
}
