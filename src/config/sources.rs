//! The sources of settings, in the order of their priority: flags, environment variables, the file, defaults.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use toml::Table;

use super::{
    error::ConfigError, section_list::settings, setting::Setting, setting_source::SettingSource, value::Value,
};

/// The prefix of the service's environment variables. An unknown variable with this prefix is an error.
const VARIABLE_PREFIX: &str = "KAIROS_IDENTITY_";

/// The variable with the path of the settings file, like `--config`.
pub(super) const FILE_VARIABLE: &str = "KAIROS_IDENTITY_CONFIG";

/// The text and the source of every setting.
#[derive(Debug)]
pub struct Sources {
    texts: BTreeMap<String, (String, SettingSource)>,
}

impl Sources {
    /// Collects the texts of all settings. `file` is the settings file, if there is one. Each flag has the
    /// key of its setting, its name and the text of its value.
    ///
    /// # Errors
    /// [`ConfigError`] if a file cannot be read or is not valid TOML, if a key or variable is unknown, if a
    /// value has the wrong type, or if a URL is set both directly and through a file.
    pub fn gather(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(impl Into<String>, &'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let defaults =
            settings().map(|setting| (setting.key(), (setting.default.to_owned(), SettingSource::Default)));
        let mut sources = Self { texts: defaults.collect() };
        if let Some(path) = file {
            sources.apply_file(path)?;
        }
        for (name, text) in variables {
            sources.apply_variable(&name, &text)?;
        }
        for (key, flag, text) in flags {
            sources.texts.insert(key.into(), (text, SettingSource::Flag(flag)));
        }
        for setting in settings().filter(|setting| setting.redact.is_some()) {
            sources.apply_secret_file(setting.key())?;
        }
        Ok(sources)
    }

    /// Parses the value of a setting.
    pub(super) fn value<T: Value>(&self, setting: &Setting) -> Result<T, ConfigError> {
        let key = setting.key();
        let (text, source) = self.texts.get(&key).expect("every setting has at least its default");
        T::parse(text).ok_or_else(|| ConfigError::BadValue {
            redacted: setting.redacted(text),
            set_by: source.clone(),
            expected: T::expects(),
            key,
        })
    }

    /// Returns the text of a setting without secrets, and its source.
    pub(super) fn redacted(&self, setting: &Setting) -> (String, &SettingSource) {
        let (text, source) = self.texts.get(&setting.key()).expect("every setting has at least its default");
        (setting.redacted(text), source)
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: Table = text.parse().map_err(|error| malformed(path, &text, &error))?;
        for (section, entries) in table {
            let Some(entries) = entries.as_table() else {
                return Err(unknown(section, SettingSource::File(path.to_owned())));
            };
            for (name, value) in entries {
                let source = SettingSource::File(path.to_owned());
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(flag) => flag.to_string(),
                    _ => {
                        return Err(ConfigError::WrongType {
                            key: format!("{section}.{name}"),
                            set_by: source,
                        });
                    }
                };
                self.set(format!("{section}.{name}"), text, source)?;
            }
        }
        Ok(())
    }

    fn apply_variable(&mut self, name: &OsString, text: &OsString) -> Result<(), ConfigError> {
        let Some(name) =
            name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX) && *name != FILE_VARIABLE)
        else {
            return Ok(());
        };
        let source = SettingSource::Variable(name.to_owned());
        let Some(text) = text.to_str() else {
            return Err(ConfigError::WrongType { key: name.to_owned(), set_by: source });
        };
        let Some(setting) = settings().find(|setting| setting.variable() == name) else {
            return Err(ConfigError::UnknownKey {
                nearest: nearest(
                    name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name),
                    settings().map(|setting| (setting.variable(), setting.field.to_uppercase())),
                ),
                key: name.to_owned(),
                set_by: source,
            });
        };
        self.set(setting.key(), text.to_owned(), source)
    }

    /// Overrides the text of a setting.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`] if no setting has this key.
    fn set(&mut self, key: String, text: String, source: SettingSource) -> Result<(), ConfigError> {
        match self.texts.get_mut(&key) {
            Some(entry) => {
                *entry = (text, source);
                Ok(())
            }
            None => Err(unknown(key, source)),
        }
    }

    /// Replaces the URL with the content of the file that `<key>-file` names, if that setting is set.
    fn apply_secret_file(&mut self, key: String) -> Result<(), ConfigError> {
        let file_key = format!("{key}-file");
        let file = self.texts.get(&file_key).filter(|(path, _)| !path.is_empty());
        let Some((path, _)) = file.map(|(path, source)| (PathBuf::from(path), source)) else { return Ok(()) };
        if self.texts.get(&key).is_some_and(|(_, source)| *source != SettingSource::Default) {
            return Err(ConfigError::BothSet { key, other: file_key });
        }
        let text = fs::read_to_string(&path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        self.texts.insert(key, (text.trim().to_owned(), SettingSource::File(path)));
        Ok(())
    }
}

/// Returns the error with the number of the line but without its text, which may contain a password.
fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    ConfigError::Malformed { path: path.to_owned(), line, rule: error.message().to_owned() }
}

/// Returns the known name whose spelling is most similar to `name`, if one is similar enough. Each known name
/// comes with its last part, without the section: `name` may lack the section. Of equally similar names the
/// first one is returned.
fn nearest(name: &str, known: impl Iterator<Item = (String, String)>) -> Option<String> {
    const SIMILARITY_MIN: f64 = 0.7;
    let mut best = (SIMILARITY_MIN, None);
    for (known, field) in known {
        // All variables begin alike, which says nothing about their similarity.
        let without_prefix = known.strip_prefix(VARIABLE_PREFIX).unwrap_or(&known);
        let similarity = strsim::jaro_winkler(name, without_prefix).max(strsim::jaro_winkler(name, &field));
        if similarity > best.0 {
            best = (similarity, Some(known));
        }
    }
    best.1
}

/// Returns the error for a key that no setting has, with the most similar key.
fn unknown(key: String, source: SettingSource) -> ConfigError {
    let known = settings().map(|setting| (setting.key(), setting.field.replace('_', "-")));
    ConfigError::UnknownKey { nearest: nearest(&key, known), key, set_by: source }
}
