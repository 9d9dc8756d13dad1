//! The text of an error for the log.

use std::{error::Error, io};

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

/// Returns why a file or folder cannot be used: a frequent cause in plain words, any other in the words of
/// the system.
pub(crate) fn io_reason(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    /// `ELOOP` of Linux, "Too many levels of symbolic links", for which the standard library has no stable
    /// kind.
    const LOOP: i32 = 40;
    let reason = match error.kind() {
        // It has words of this service.
        _ if error.get_ref().is_some() => return error.to_string(),
        Kind::PermissionDenied => "the user of this process may not access it",
        Kind::NotADirectory => "a folder in its path is a file",
        Kind::IsADirectory => "it is a folder, not a file",
        Kind::InvalidFilename => "its name is too long",
        Kind::ReadOnlyFilesystem => "the file system is read-only",
        Kind::StorageFull | Kind::QuotaExceeded => "the disk is full",
        Kind::FileTooLarge => "it would be larger than the system allows (ulimit -f)",
        _ if error.raw_os_error() == Some(LOOP) => "it is a symbolic link that leads to itself",
        _ => return error.to_string(),
    };
    reason.to_owned()
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
