//! Characters that control how a text is shown.

/// True for a character that controls a terminal, that breaks a line, that changes the direction of a text
/// (UAX 9), or that is invisible between others.
#[must_use]
pub fn controls_text(c: char) -> bool {
    const SOFT_HYPHEN: char = '\u{ad}';
    const ARABIC_LETTER_MARK: char = '\u{61c}';
    const BYTE_ORDER_MARK: char = '\u{feff}';
    c.is_control()
        || matches!(c, SOFT_HYPHEN | ARABIC_LETTER_MARK | BYTE_ORDER_MARK)
        // The zero-width space, direction marks, line and paragraph separators, embeddings and overrides,
        // word joiners and isolates. Not the joiners U+200C and U+200D, which names and emoji contain.
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_marks_that_change_a_text_control_it_and_letters_do_not() {
        for c in ['\n', '\t', '\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{2028}', '\u{feff}']
        {
            assert!(controls_text(c), "{c:?}");
        }
        for c in ['a', ' ', 'ë', '李', '🦀', '\u{301}', '\u{a0}'] {
            assert!(!controls_text(c), "{c:?}");
        }
    }
}
