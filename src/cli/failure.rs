//! How a command fails.

use std::io;

use crate::{config::ConfigError, domain::chain};

/// Why a command failed, on one line.
pub(super) type Failure = String;

/// Why the program ends without success, on one line. What clap cannot parse, clap itself reports.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The value of a flag is malformed.
    #[error("{0}")]
    MalformedFlag(String),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// Returns the exit code of the process. An invalid command line has the code that clap uses.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::MalformedFlag(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        if error.is_about_flag() {
            Self::MalformedFlag(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

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
