//! The text of an error for the log.

use std::error::Error;

/// Returns an error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        // Wrappers often repeat the text of the error that they wrap.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Wrapper(&'static str, #[source] Box<dyn Error>);

    #[test]
    fn each_source_is_named_once() {
        let source = Wrapper("connection refused", "os error 111".into());
        let repeating = Wrapper("no answer: os error 111", "os error 111".into());
        assert_eq!(chain(&source), "connection refused: os error 111");
        assert_eq!(chain(&repeating), "no answer: os error 111");
        assert_eq!(chain(&Wrapper("outer", Box::new(source))), "outer: connection refused: os error 111");
    }
}
