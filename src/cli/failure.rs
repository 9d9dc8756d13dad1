//! How a command fails.

use std::io;

use crate::domain::chain;

/// Why a command failed, on one line.
pub(super) type Failure = String;

/// Returns true if the reader of the output has closed the pipe, as `head` does when it has read enough, and
/// any other error as a [`Failure`].
pub(super) fn check_write(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(reason(error)),
    }
}

/// Formats an error and its causes on one line.
pub(super) fn reason(error: impl std::error::Error) -> Failure {
    chain(&error)
}
