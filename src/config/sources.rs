//! The sources of settings, in the order of their priority: flags, environment variables, the file, defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::Table;

use super::{
    error::ConfigError,
    kubernetes,
    section_list::settings,
    setting::{FILE_VARIABLE, Setting, VARIABLE_PREFIX},
    setting_source::SettingSource,
    similar_name::{misspelt_prefix, nearest},
    url_text::HIDDEN,
    value::Value,
};
use crate::input_file;

/// The text and the source of every setting.
#[derive(Debug)]
pub struct Sources {
    texts: BTreeMap<String, (String, SettingSource)>,
    warnings: Vec<String>,
    /// What is wrong with single settings.
    errors: Vec<ConfigError>,
    /// The keys of the settings that the errors are about. These settings have their defaults instead.
    invalid: BTreeSet<String>,
}

impl Sources {
    /// Collects the texts of all settings. `file` is the settings file, if there is one. Each flag has the
    /// key of its setting, its name and the text of its value. What is wrong with single settings is in
    /// [`Sources::errors`]: a key or variable is unknown, a value is invalid, or a URL is set both directly
    /// and through a file. These settings have their defaults.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, if the settings file cannot be read or is not valid
    /// TOML: any setting may be in it.
    pub(super) fn gather(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(impl Into<String>, &'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let texts =
            settings().map(|setting| (setting.key(), (setting.default.to_owned(), SettingSource::Default)));
        let mut sources = Self {
            texts: texts.collect(),
            warnings: Vec::new(),
            errors: Vec::new(),
            invalid: BTreeSet::new(),
        };
        let mut errors = Vec::new();
        let variables: Vec<_> = variables.into_iter().collect();
        if let Some(path) = file {
            let is_named_by_variable =
                variables.iter().any(|(name, text)| name == FILE_VARIABLE && Path::new(text) == path);
            let named_by = if is_named_by_variable {
                SettingSource::Variable(FILE_VARIABLE.to_owned())
            } else {
                SettingSource::Flag("config")
            };
            sources.apply_file(path, &named_by, &mut errors);
        }
        for (name, text) in variables {
            errors.extend(sources.apply_variable(&name, &text).err());
        }
        for (key, flag, text) in flags {
            sources.texts.insert(key.into(), (text, SettingSource::Flag(flag)));
        }
        for setting in settings().filter(|setting| setting.redact.is_some()) {
            errors.extend(sources.apply_secret_file(setting.key()).err());
        }
        sources.warn_of_shared_secrets();
        errors.extend(settings().filter_map(|setting| sources.check(setting).err()));
        if errors.iter().any(ConfigError::is_about_whole_file) {
            return ConfigError::all(errors).map(|()| sources);
        }
        sources.default_invalid(errors);
        Ok(sources)
    }

    /// Warns of passwords in a settings file that other users may read.
    fn warn_of_shared_secrets(&mut self) {
        let warnings = settings().filter_map(|setting| {
            let (text, source) = self.entry(setting);
            let SettingSource::File(path) = source else { return None };
            let has_secret = setting.redact.is_some() && setting.redacted(text) != *text;
            let warning = has_secret.then(|| input_file::shared_file_warning(path))??;
            let key = setting.key();
            Some(format!(
                "{key} has a password, and {warning}, or write the URL into a file of its own ({key}-file)"
            ))
        });
        let warnings: Vec<_> = warnings.collect();
        self.warnings.extend(warnings);
    }

    /// Keeps the errors, and gives the settings that they are about their defaults.
    fn default_invalid(&mut self, errors: Vec<ConfigError>) {
        // An unknown key may mean a setting that nothing else sets.
        let is_meant = |setting: &Setting, error: &ConfigError| {
            !matches!(error, ConfigError::UnknownKey { .. }) || self.is_default(&setting.key())
        };
        let is_about = |setting: &Setting| {
            errors.iter().any(|error| error.is_about(setting) && is_meant(setting, error))
        };
        let invalid: Vec<_> = settings().filter(|setting| is_about(setting)).collect();
        for setting in invalid {
            self.texts.insert(setting.key(), (setting.default.to_owned(), SettingSource::Default));
            self.invalid.insert(setting.key());
        }
        self.errors = errors;
    }

    /// What is wrong with single settings.
    pub(super) fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// Returns these sources if nothing is wrong with a single setting.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub(super) fn require_valid(mut self) -> Result<Self, ConfigError> {
        ConfigError::all(std::mem::take(&mut self.errors)).map(|()| self)
    }

    /// True if the value of a command line flag is malformed.
    #[must_use]
    pub fn is_flag_malformed(&self) -> bool {
        self.errors.iter().any(ConfigError::is_about_flag)
    }

    /// Returns the key of a setting that has no valid value among those with these keys, and among all
    /// settings of a section for a name of a section. What depends on it cannot be checked.
    #[must_use]
    pub fn first_invalid(&self, keys_and_sections: &[&str]) -> Option<&str> {
        let is_meant = |key: &str| {
            let section = key.split_once('.').map(|(section, _)| section);
            keys_and_sections.iter().any(|meant| *meant == key || Some(*meant) == section)
        };
        self.invalid.iter().map(String::as_str).find(|key| is_meant(key))
    }

    /// Returns the warnings about what was found and is not used.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Parses the value of a setting.
    pub(super) fn value<T: Value>(&self, setting: &Setting) -> Result<T, ConfigError> {
        let (text, _) = self.entry(setting);
        T::parse(text).ok_or_else(|| self.bad_value(setting))
    }

    /// True if nothing sets the setting with this key.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.texts.get(key).is_none_or(|(_, source)| *source == SettingSource::Default)
    }

    /// Checks the value of a setting.
    fn check(&self, setting: &Setting) -> Result<(), ConfigError> {
        let (text, _) = self.entry(setting);
        let is_valid = (setting.accepts)(text) && !is_without_password(setting, text);
        if is_valid { Ok(()) } else { Err(self.bad_value(setting)) }
    }

    fn bad_value(&self, setting: &Setting) -> ConfigError {
        let (text, source) = self.entry(setting);
        let flaw = if is_without_password(setting, text) {
            Some(format!("{HIDDEN} is shown instead of a password: write the password"))
        } else {
            (setting.flaw)(text)
        };
        ConfigError::BadValue {
            key: setting.key(),
            redacted: shortened(&setting.redacted(text)).into(),
            set_by: source.clone(),
            expected: (setting.expects)().into(),
            flaw: flaw.map(Into::into),
            suggestion: (setting.suggests)(text).map(Into::into),
        }
    }

    /// Returns the text of a setting and its source.
    fn entry(&self, setting: &Setting) -> &(String, SettingSource) {
        self.texts.get(&setting.key()).expect("every setting has at least its default")
    }

    /// Returns the settings with these keys, each with its value without secrets and its source.
    pub(super) fn describe(&self, keys: &[&str]) -> String {
        let described = settings().filter(|setting| keys.contains(&setting.key().as_str())).map(|setting| {
            let (text, source) = self.redacted(setting);
            let text = if text.is_empty() { "not set".to_owned() } else { shortened(&text) };
            format!("{} is {text} ({source})", setting.key())
        });
        described.collect::<Vec<_>>().join(", ")
    }

    /// Appends the values and sources of settings to a finding that begins with their keys (`KEY: ...`,
    /// `KEY and KEY: ...`), unless it ends with them already. Returns any other finding unchanged.
    #[must_use]
    pub fn with_origin(&self, finding: &str) -> String {
        let subject = finding.split_once(": ").map(|(subject, _)| subject).unwrap_or_default();
        let keys: Vec<&str> = subject.split(" and ").collect();
        let is_key = |key: &&str| self.texts.contains_key(*key);
        let origin = format!(" [{}]", self.describe(&keys));
        // A setting without a valid value has its default, which is not what the finding is about.
        if keys.iter().all(is_key) && self.first_invalid(&keys).is_none() && !finding.contains(&origin) {
            format!("{finding}{origin}")
        } else {
            finding.to_owned()
        }
    }

    /// Returns the text of a setting without secrets, and its source.
    pub(super) fn redacted(&self, setting: &Setting) -> (String, &SettingSource) {
        let (text, source) = self.entry(setting);
        (setting.redacted(text), source)
    }

    fn apply_file(&mut self, path: &Path, named_by: &SettingSource, errors: &mut Vec<ConfigError>) {
        if path.as_os_str().is_empty() {
            return errors.push(ConfigError::UnnamedFile { set_by: named_by.clone() });
        }
        // It names the keys, the callers and the database.
        let table = input_file::read_trusted_text(path)
            .map_err(|error| ConfigError::Unreadable { source: Box::new(error), set_by: named_by.clone() })
            .and_then(|text| text.parse::<Table>().map_err(|error| malformed(path, named_by, &text, &error)));
        let table = match table {
            Ok(table) => table,
            Err(error) => return errors.push(error),
        };
        let source = SettingSource::File(path.to_owned());
        for (section, entries) in table {
            let Some(entries) = entries.as_table() else {
                errors.push(no_section(section, &entries, source.clone()));
                continue;
            };
            for (name, value) in entries {
                let key = format!("{section}.{name}");
                let set_by = source.clone();
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(flag) => flag.to_string(),
                    other => {
                        errors.push(wrong_type(key, found_type(other), set_by));
                        continue;
                    }
                };
                errors.extend(self.set(key, text, set_by).err());
            }
        }
    }

    fn apply_variable(&mut self, name: &OsString, text: &OsString) -> Result<(), ConfigError> {
        let Some(name) = name.to_str().filter(|name| *name != FILE_VARIABLE) else { return Ok(()) };
        let Some(own) = name.strip_prefix(VARIABLE_PREFIX) else {
            self.warnings.extend(misspelt_prefix(name));
            return Ok(());
        };
        let source = SettingSource::Variable(name.to_owned());
        let Some(text) = text.to_str() else {
            let setting = settings().find(|setting| setting.variable() == name);
            let key = setting.map_or_else(|| name.to_owned(), Setting::key);
            return Err(wrong_type(key, "bytes that are not UTF-8", source));
        };
        let Some(setting) = settings().find(|setting| setting.variable() == name) else {
            if kubernetes::is_of_service(own, text) {
                return Ok(());
            }
            return Err(ConfigError::UnknownKey {
                nearest: nearest(
                    own,
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

    /// Replaces the URL with the content of the file that `<key>-file` names, if that setting is set. A
    /// variable or a flag overrides the other one of the two in the settings file. Otherwise, setting both is
    /// a contradiction.
    fn apply_secret_file(&mut self, key: String) -> Result<(), ConfigError> {
        let file_key = format!("{key}-file");
        let file = self.texts.get(&file_key).filter(|(path, _)| !path.is_empty());
        let Some((path, set_by)) = file.map(|(path, source)| (PathBuf::from(path), source.clone())) else {
            return Ok(());
        };
        let directly = self.texts.get(&key).map_or(SettingSource::Default, |(_, source)| source.clone());
        if directly.overrides_file() && !set_by.overrides_file() {
            return Ok(());
        }
        if directly != SettingSource::Default && set_by.overrides_file() == directly.overrides_file() {
            return Err(ConfigError::BothSet {
                key,
                set_by: directly,
                other: file_key,
                other_set_by: set_by,
            });
        }
        let read = input_file::read_secret(&path).map_err(|source| ConfigError::UnusableFile {
            key: file_key.clone(),
            source: Box::new(source),
            set_by: set_by.clone(),
        })?;
        if read.text.trim().is_empty() {
            return Err(ConfigError::EmptyFile { key: file_key, twin: key, path, set_by });
        }
        self.warnings.extend(read.warning.map(|warning| format!("{file_key}: {warning}")));
        self.texts.insert(
            key,
            (read.text.trim().to_owned(), SettingSource::SecretFile(Box::new((file_key, path)))),
        );
        Ok(())
    }
}

/// True if the text has what is shown instead of a password, as `--print-config` prints it.
fn is_without_password(setting: &Setting, text: &str) -> bool {
    setting.redact.is_some_and(|redact| text.contains(HIDDEN) && redact(text) == text)
}

/// Shortens a text for an error. A longer text is no value of the setting: it was meant for another one, or
/// is a whole file.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Returns the error with the number of the line but without its text, which may contain a password.
fn malformed(path: &Path, set_by: &SettingSource, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    ConfigError::Malformed {
        path: path.to_owned(),
        line,
        rule: error.message().to_owned(),
        set_by: set_by.clone(),
    }
}

/// Returns the error of a value that is no text, integer or boolean, or of a variable that is not UTF-8.
fn wrong_type(key: String, found: &'static str, set_by: SettingSource) -> ConfigError {
    match settings().find(|setting| setting.key() == key) {
        Some(setting) => ConfigError::WrongType { key, expected: (setting.expects)(), found, set_by },
        None => unknown(key, set_by),
    }
}

/// Returns the error of an entry that is not in a section.
fn no_section(name: String, entry: &toml::Value, set_by: SettingSource) -> ConfigError {
    if settings().any(|setting| setting.section == name) {
        let expected = format!("the section [{name}]");
        ConfigError::WrongType { key: name, expected, found: found_type(entry), set_by }
    } else {
        unknown(name, set_by)
    }
}

/// Returns the name of the type of a TOML value, for a type that is not expected.
const fn found_type(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
        toml::Value::Float(_) => "a number with a fraction",
        toml::Value::Datetime(_) => "a date or time without quotes",
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) => "a number",
        toml::Value::Boolean(_) => "true or false",
    }
}

/// Returns the error for a key that no setting has, with the most similar key.
fn unknown(key: String, source: SettingSource) -> ConfigError {
    let known = settings().map(|setting| (setting.key(), setting.field.replace('_', "-")));
    ConfigError::UnknownKey { nearest: nearest(&key, known), key, set_by: source }
}
