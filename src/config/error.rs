//! Why settings could not be loaded.

use std::{io, path::PathBuf};

use super::setting_source::SettingSource;

/// Why the settings could not be loaded. The messages contain no password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file, or a file that a setting names, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not valid TOML.
    #[error("{} is not valid TOML: line {line}: {rule}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line of the error, counted from 1.
        line: usize,
        /// The parser's message.
        rule: String,
    },
    /// A key or a variable that is not a setting, most likely because it is misspelt.
    #[error("{key} is not a setting ({set_by}){}; docs/CONFIG.md lists all settings", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The unknown key or variable.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
        /// The known name with the most similar spelling, if one is similar enough.
        nearest: Option<String>,
    },
    /// A value of a type that no setting has, such as a list or a table, or a variable that is not UTF-8.
    #[error("{key} must be a UTF-8 string, an integer or a boolean ({set_by})")]
    WrongType {
        /// The key or variable.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
    },
    /// A value that the type of the setting does not allow.
    #[error("{key}: expected {expected}, not \"{redacted}\" ({set_by})")]
    BadValue {
        /// The key.
        key: String,
        /// The text of the value, without secrets.
        redacted: String,
        /// Where it was set.
        set_by: SettingSource,
        /// A description of the valid values.
        expected: String,
    },
    /// A secret that is set both directly and through a file.
    #[error("{key} and {other} are both set: set only one of them")]
    BothSet {
        /// The setting with the value.
        key: String,
        /// The setting with the file.
        other: String,
    },
    /// A combination of settings with which the service does not start.
    #[error("{0}")]
    Rule(String),
}

impl ConfigError {
    /// True if the value of a command line flag is malformed.
    #[must_use]
    pub const fn is_about_flag(&self) -> bool {
        matches!(self, Self::BadValue { set_by: SettingSource::Flag(_), .. })
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}
