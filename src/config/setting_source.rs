//! Where the value of a setting comes from.

use std::{fmt, path::PathBuf};

use crate::input_file::ShownPath;

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// The default.
    Default,
    /// A file, by its path.
    File(PathBuf),
    /// A file with the value of one secret setting, by the key of the setting that names it, and its path.
    SecretFile(Box<(String, PathBuf)>),
    /// An environment variable, by its name.
    Variable(String),
    /// A command line flag, by its name without the leading hyphens.
    Flag(&'static str),
}

impl SettingSource {
    /// True for variables and flags, which belong to one invocation and override the settings file.
    pub(super) const fn overrides_file(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Flag(_))
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", ShownPath(path)),
            Self::SecretFile(file) => write!(f, "{} {}", file.0, ShownPath(&file.1)),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}
