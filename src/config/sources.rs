//! Where settings come from: flags before variables before the file before the defaults.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use toml::Table;

use super::{ConfigError, setting::Setting, settings, value::Value};

/// Variables that begin so are ours, and an unknown one is a mistake.
const VARIABLE_PREFIX: &str = "KAIROS_IDENTITY_";

/// The variable that names the file, as `--config` does.
pub(super) const FILE_VARIABLE: &str = "KAIROS_IDENTITY_CONFIG";

/// Who set a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: it is the default.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line, without its hyphens.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A flag that was given: the key it stands for, its name, its text.
pub type Flag = (&'static str, &'static str, String);

/// The text of every setting, and who said so.
#[derive(Debug)]
pub struct Sources {
    texts: BTreeMap<String, (String, Origin)>,
}

impl Sources {
    /// Gathers them; `file` is the one that `--config` or its variable names.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, a key or variable that is not known, or a URL given twice.
    pub fn gather(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, ConfigError> {
        let defaults =
            settings().map(|setting| (setting.key(), (setting.default.to_owned(), Origin::Default)));
        let mut sources = Self { texts: defaults.collect() };
        if let Some(path) = file {
            sources.take_file(path)?;
        }
        for (name, text) in variables {
            sources.take_variable(&name, &text)?;
        }
        for (key, flag, text) in flags {
            sources.texts.insert(key.to_owned(), (text, Origin::Flag(flag)));
        }
        sources.take_secret_file("database.url")?;
        sources.take_secret_file("database.read-urls")?;
        sources.take_secret_file("mail.url")?;
        Ok(sources)
    }

    /// The value of a setting.
    pub(super) fn value<T: Value>(&self, setting: &Setting) -> Result<T, ConfigError> {
        let key = setting.key();
        let (text, origin) = self.texts.get(&key).expect("every setting has at least its default");
        T::parse(text).ok_or_else(|| ConfigError::BadValue {
            shown: setting.redacted(text),
            origin: origin.clone(),
            expected: T::expects(),
            key,
        })
    }

    /// The text of a setting as it may be shown, and who said so.
    pub(super) fn shown(&self, setting: &Setting) -> (String, &Origin) {
        let (text, origin) = self.texts.get(&setting.key()).expect("every setting has at least its default");
        (setting.redacted(text), origin)
    }

    fn take_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: Table = text.parse().map_err(|error| malformed(path, &text, &error))?;
        for (section, entries) in table {
            let Some(entries) = entries.as_table() else {
                return Err(self.unknown(section, Origin::File(path.to_owned())));
            };
            for (name, value) in entries {
                let origin = Origin::File(path.to_owned());
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(flag) => flag.to_string(),
                    _ => return Err(ConfigError::WrongType { key: format!("{section}.{name}"), origin }),
                };
                self.set(format!("{section}.{name}"), text, origin)?;
            }
        }
        Ok(())
    }

    fn take_variable(&mut self, name: &OsString, text: &OsString) -> Result<(), ConfigError> {
        let Some(name) =
            name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX) && *name != FILE_VARIABLE)
        else {
            return Ok(());
        };
        let origin = Origin::Variable(name.to_owned());
        let Some(text) = text.to_str() else {
            return Err(ConfigError::WrongType { key: name.to_owned(), origin });
        };
        let Some(setting) = settings().find(|setting| setting.variable() == name) else {
            return Err(ConfigError::UnknownKey {
                nearest: nearest(name, settings().map(Setting::variable)),
                key: name.to_owned(),
                origin,
            });
        };
        self.set(setting.key(), text.to_owned(), origin)
    }

    fn set(&mut self, key: String, text: String, origin: Origin) -> Result<(), ConfigError> {
        match self.texts.get_mut(&key) {
            Some(place) => {
                *place = (text, origin);
                Ok(())
            }
            None => Err(self.unknown(key, origin)),
        }
    }

    fn unknown(&self, key: String, origin: Origin) -> ConfigError {
        ConfigError::UnknownKey { nearest: nearest(&key, self.texts.keys().cloned()), key, origin }
    }

    /// Replaces the URL by what stands in the file of `<key>-file`, if that is set.
    fn take_secret_file(&mut self, key: &'static str) -> Result<(), ConfigError> {
        let file_key = format!("{key}-file");
        let file = self.texts.get(&file_key).filter(|(path, _)| !path.is_empty());
        let Some((path, _)) = file.map(|(path, origin)| (PathBuf::from(path), origin)) else { return Ok(()) };
        if self.texts.get(key).is_some_and(|(_, origin)| *origin != Origin::Default) {
            return Err(ConfigError::Both { key: key.to_owned(), other: file_key });
        }
        let text = fs::read_to_string(&path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        self.texts.insert(key.to_owned(), (text.trim().to_owned(), Origin::File(path)));
        Ok(())
    }
}

/// Names the line, and does not show it: it may hold a password.
fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    ConfigError::Malformed { path: path.to_owned(), line, rule: error.message().to_owned() }
}

/// The known name that is spelt most like `name`, if any is.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    const ALIKE_MIN: f64 = 0.7;
    let alike = known.map(|known| (strsim::jaro_winkler(name, &known), known));
    alike.filter(|(alike, _)| *alike >= ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
