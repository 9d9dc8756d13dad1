//! How a command fails.

use super::printable::failure_line;
use crate::{
    config::{ConfigError, Sources},
    domain::chain,
};

/// Why a command failed, on one line.
pub(super) type Failure = String;

/// Why the program ends without success, on one line. Errors of clap are not among them: `print_clap` prints
/// those.
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
    /// Returns the error of a command that has read the settings from `sources`. It names the origin of the
    /// settings that it is about.
    pub(super) fn of_settings(sources: &Sources, failure: &str) -> Self {
        let line = failure_line(&sources.with_origin(failure));
        if sources.is_flag_malformed() { Self::MalformedFlag(line) } else { Self::Failed(line) }
    }

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
        Self::Failed(failure_line(&failure))
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let line = failure_line(&error.to_string());
        if error.is_about_flag() { Self::MalformedFlag(line) } else { Self::Failed(line) }
    }
}

/// Formats an error and its causes on one line.
pub(super) fn reason(error: impl std::error::Error) -> Failure {
    chain(&error)
}
