//! The token in a link that an end user has opened.

use super::{AuthToken, MailToken};

/// The `token` parameter of a link, classified by its form alone.
#[derive(Clone, Debug)]
pub enum LinkToken {
    /// A token that this service mails.
    Mailed(MailToken),
    /// An `auth_token`, which Django mailed. It is no secret, so it verifies nothing, unless an operator
    /// accepts such links for a limited time.
    AuthToken(AuthToken),
    /// A text in neither form.
    Unknown,
}

impl LinkToken {
    /// Classifies the text; every text is one of the variants.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match (MailToken::parse(text), AuthToken::parse(text)) {
            (Ok(token), _) => Self::Mailed(token),
            (Err(_), Ok(token)) => Self::AuthToken(token),
            (Err(_), Err(_)) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_token_determines_its_kind() {
        let mailed = MailToken::from_random([7; 32]).to_link_text();
        assert!(matches!(LinkToken::parse(&mailed), LinkToken::Mailed(_)));
        for uuid in ["0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11", "0E1F3A527F5B4A4E9D5B0C5A5B0B7F11"] {
            assert!(matches!(LinkToken::parse(uuid), LinkToken::AuthToken(_)), "{uuid}");
        }
        for text in ["", "x", &mailed[1..], "https://example.com"] {
            assert!(matches!(LinkToken::parse(text), LinkToken::Unknown), "{text}");
        }
    }
}
