//! The program of an end user.

use super::controls_text;

/// Maximum number of characters that are kept. The main product comes first in the text, so it is kept.
pub const CLIENT_AGENT_CHARACTERS_MAX: usize = 256;

/// The `User-Agent` of an end user's program (RFC 9110, section 10.1.5), on one line and truncated. It is an
/// unverified claim, stored only for readers of the session list and the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientAgent(String);

impl ClientAgent {
    /// Accepts any bytes, because an unusual program is no reason to refuse its user. Characters that control
    /// the text ([`controls_text`]) and invalid UTF-8 become U+FFFD. Returns `None` if nothing but white
    /// space remains.
    #[must_use]
    pub fn from_bytes_lossy(bytes: &[u8]) -> Option<Self> {
        let printable = |c: char| if controls_text(c) { char::REPLACEMENT_CHARACTER } else { c };
        let text = String::from_utf8_lossy(bytes);
        let text: String = text.trim().chars().map(printable).take(CLIENT_AGENT_CHARACTERS_MAX).collect();
        (!text.is_empty()).then_some(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Option<String> {
        ClientAgent::from_bytes_lossy(bytes).map(|agent| agent.as_str().to_owned())
    }

    #[test]
    fn any_bytes_become_one_short_line() {
        assert_eq!(parsed(b" Mozilla/5.0 (X11) ").as_deref(), Some("Mozilla/5.0 (X11)"));
        assert_eq!(parsed(b"a\tb\x1b[2K\xff").as_deref(), Some("a\u{fffd}b\u{fffd}[2K\u{fffd}"));
        assert_eq!(
            parsed("a\u{202e}b\u{2028}\u{200b}".as_bytes()).as_deref(),
            Some("a\u{fffd}b\u{fffd}\u{fffd}")
        );
        assert_eq!(parsed(&[b'x'; 10_000]).map(|text| text.len()), Some(CLIENT_AGENT_CHARACTERS_MAX));
        assert_eq!((parsed(b""), parsed(b"  ")), (None, None));
    }
}
