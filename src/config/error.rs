//! Why settings could not be loaded.

use std::path::PathBuf;

use super::{setting::Setting, setting_source::SettingSource};
use crate::{
    domain::Numbered,
    input_file::{InputFileError, ShownPath},
};

/// Why the settings could not be loaded. The messages contain no password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("cannot read the settings file {source} ({set_by})")]
    Unreadable {
        /// The cause, which names the file.
        source: Box<InputFileError>,
        /// What names the file.
        set_by: SettingSource,
    },
    /// The name of the settings file is empty.
    #[error("the name of the settings file is empty: name a file, or leave the name out ({set_by})")]
    UnnamedFile {
        /// What names the file.
        set_by: SettingSource,
    },
    /// A file that a setting names cannot be read.
    #[error("{key}: {source} ({set_by})")]
    UnusableFile {
        /// The key of the setting.
        key: String,
        /// The cause, which names the file.
        source: Box<InputFileError>,
        /// Where the setting was set.
        set_by: SettingSource,
    },
    /// A file that a setting names is empty.
    #[error("{key}: {} is empty: write the value of {twin} into it ({set_by})", ShownPath(path))]
    EmptyFile {
        /// The key of the setting.
        key: String,
        /// The key of the setting whose value the file contains.
        twin: String,
        /// The file.
        path: PathBuf,
        /// Where the setting was set.
        set_by: SettingSource,
    },
    /// The file is not valid TOML.
    #[error("the settings file {} is not valid TOML: line {line}: {rule} ({set_by})", ShownPath(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line of the error, counted from 1.
        line: usize,
        /// The parser's message.
        rule: String,
        /// What names the file.
        set_by: SettingSource,
    },
    /// A key or a variable that is not a setting, most likely because it is misspelt.
    #[error("{} is not a setting ({set_by}){} docs/CONFIG.md lists all settings", quoted_if_needed(key), did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The unknown key or variable.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
        /// The known name with the most similar spelling, if one is similar enough.
        nearest: Option<String>,
    },
    /// A value of a type that no setting has, such as a list or a table, a variable that is not UTF-8, or a
    /// section that is not a table. `key` is then the name of the section.
    #[error("{key}: expected {expected}, not {found} ({set_by})")]
    WrongType {
        /// The key.
        key: String,
        /// A description of the valid values.
        expected: String,
        /// What the value is instead.
        found: &'static str,
        /// Where it was set.
        set_by: SettingSource,
    },
    /// A value that the type of the setting does not allow.
    #[error("{key}: expected {expected}, not \"{redacted}\" ({set_by}){}{}", because(flaw.as_deref()), write_instead(suggestion.as_deref(), set_by))]
    BadValue {
        /// The key.
        key: String,
        /// The text of the value, without secrets.
        redacted: Box<str>,
        /// Where it was set.
        set_by: SettingSource,
        /// A description of the valid values.
        expected: Box<str>,
        /// What is wrong with the value, without secrets.
        flaw: Option<Box<str>>,
        /// The valid text that was probably meant.
        suggestion: Option<Box<str>>,
    },
    /// A secret that is set both directly and through a file.
    #[error("{key} ({set_by}) and {other} ({other_set_by}) are both set: set only one of them")]
    BothSet {
        /// The setting with the value.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
        /// The setting with the file.
        other: String,
        /// Where that was set.
        other_set_by: SettingSource,
    },
    /// Several errors, at least two.
    #[error("{}", Numbered(_0))]
    Several(Vec<ConfigError>),
}

impl ConfigError {
    /// Returns one error for all of these, or `Ok` if there is none.
    ///
    /// # Errors
    /// The error, or [`ConfigError::Several`].
    pub fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Several(errors)),
        }
    }

    /// True if it is unknown what the settings file contains.
    pub(super) const fn is_about_whole_file(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::UnnamedFile { .. } | Self::Malformed { .. })
    }

    /// True if this setting has no valid value, or may be the one that was meant.
    pub(super) fn is_about(&self, setting: &Setting) -> bool {
        let is_named = |name: &str| name == setting.key() || name == setting.section;
        match self {
            Self::UnusableFile { key, .. } => {
                is_named(key) || key.strip_suffix("-file").is_some_and(is_named)
            }
            Self::EmptyFile { key, twin: other, .. } | Self::BothSet { key, other, .. } => {
                is_named(key) || is_named(other)
            }
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                *nearest == setting.key() || *nearest == setting.variable()
            }
            Self::WrongType { key, .. } | Self::BadValue { key, .. } => is_named(key),
            Self::Several(errors) => errors.iter().any(|error| error.is_about(setting)),
            Self::UnknownKey { nearest: None, .. }
            | Self::Unreadable { .. }
            | Self::UnnamedFile { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// True if the value of a command line flag is malformed.
    #[must_use]
    pub fn is_about_flag(&self) -> bool {
        match self {
            Self::BadValue { set_by: SettingSource::Flag(_), .. } => true,
            Self::Several(errors) => errors.iter().any(Self::is_about_flag),
            _ => false,
        }
    }
}

fn because(flaw: Option<&str>) -> String {
    flaw.map(|flaw| format!(": {flaw}")).unwrap_or_default()
}

fn write_instead(suggestion: Option<&str>, set_by: &SettingSource) -> String {
    match (suggestion, set_by) {
        (None, _) => String::new(),
        // TOML has texts in quotation marks.
        (Some(suggestion), SettingSource::File(_))
            if suggestion.parse::<i64>().is_err() && suggestion.parse::<bool>().is_err() =>
        {
            format!(": write {suggestion:?}")
        }
        (Some(suggestion), _) => format!(": write {suggestion}"),
    }
}

/// Quotes a name in which a character, or the end of the name, is easily overlooked.
fn quoted_if_needed(name: &str) -> String {
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    if name.split('.').all(is_plain) { name.to_owned() } else { format!("{name:?}") }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| ";".to_owned(), |nearest| format!(": did you mean {nearest}?"))
}
