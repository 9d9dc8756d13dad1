//! The form in which the commands print text: foreign text cannot control a terminal.

use crate::domain::controls_text;

/// Formats text that others have written as one field of a line: control characters, also tabs and line
/// breaks, and characters that change the direction of the text are escaped.
pub(super) fn field(text: &str) -> String {
    escaped(text, &[])
}

/// Escapes the control characters of a text except those in `kept`.
pub(super) fn escaped(text: &str, kept: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if controls_text(c) && !kept.contains(&c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Formats the reason of a failure for the terminal: on one line, and without the numbers that Rust appends
/// to the errors of the system.
pub(super) fn failure_line(reason: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut shown = String::new();
    let mut rest = reason;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        shown.push_str(before);
        let end = after.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = end.strip_prefix(')').unwrap_or(end);
    }
    shown.push_str(rest);
    escaped(shown.trim_end(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_forges_neither_lines_nor_fields_nor_controls_the_terminal() {
        assert_eq!(field("a\tb\nc\r\u{1b}]0;x\u{7}"), "a\\tb\\nc\\r\\u{1b}]0;x\\u{7}");
        assert_eq!(field("\u{9b}2J\u{202e}x\u{2028}"), "\\u{9b}2J\\u{202e}x\\u{2028}");
        assert_eq!(field("Zoë 李 🦀"), "Zoë 李 🦀");
        assert_eq!(escaped("a\tb\n", &['\t']), "a\tb\\n");
    }

    #[test]
    fn a_failure_has_one_line_and_no_error_numbers() {
        assert_eq!(failure_line("a: File exists (os error 17): b (os error 2)\nc"), "a: File exists: b\\nc");
    }
}
