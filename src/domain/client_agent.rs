//! The program that an end user calls with.

/// The most characters that are kept: the products that name it come first.
pub const CLIENT_AGENT_CHARACTERS_MAX: usize = 256;

/// What an end user's program says of itself (RFC 9110, section 10.1.5), on one line and cut short. A claim and no more: for a
/// person who reads what happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientAgent(String);

impl ClientAgent {
    /// Takes whatever is told: a strange program is no reason to refuse its user. Controls and what is not UTF-8 become U+FFFD;
    /// nothing comes of nothing.
    #[must_use]
    pub fn from_told(told: &[u8]) -> Option<Self> {
        let legible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let text = String::from_utf8_lossy(told);
        let text: String = text.trim().chars().map(legible).take(CLIENT_AGENT_CHARACTERS_MAX).collect();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Option<String> {
        ClientAgent::from_told(bytes).map(|agent| agent.as_str().to_owned())
    }

    #[test]
    fn whatever_is_told_is_one_short_line() {
        assert_eq!(told(b" Mozilla/5.0 (X11) ").as_deref(), Some("Mozilla/5.0 (X11)"));
        assert_eq!(told(b"a\tb\x1b[2K\xff").as_deref(), Some("a\u{fffd}b\u{fffd}[2K\u{fffd}"));
        assert_eq!(told(&[b'x'; 10_000]).map(|text| text.len()), Some(CLIENT_AGENT_CHARACTERS_MAX));
        assert_eq!((told(b""), told(b"  ")), (None, None));
    }
}
