//! The declaration of a setting. The TOML file, the variables, the flags, `--print-config` and
//! `docs/CONFIG.md` all use this one declaration.

use super::url_text::redacted;

/// The prefix of the service's environment variables. An unknown variable with this prefix is an error,
/// unless Kubernetes sets it.
pub(super) const VARIABLE_PREFIX: &str = "KAIROS_IDENTITY_";

/// The variable with the path of the settings file, like `--config`.
pub(super) const FILE_VARIABLE: &str = "KAIROS_IDENTITY_CONFIG";

/// The declaration of one setting.
#[derive(Debug)]
pub struct Setting {
    /// The section in the file.
    pub section: &'static str,
    /// The name of the struct field. The key has hyphens instead of its underscores.
    pub field: &'static str,
    /// The text that is used if the setting is not set; empty means unset.
    pub default: &'static str,
    /// Returns a description of the valid values.
    pub expects: fn() -> String,
    /// True if the text is a valid value.
    pub accepts: fn(&str) -> bool,
    /// Returns the valid text that an invalid one probably means.
    pub suggests: fn(&str) -> Option<String>,
    /// Returns what is wrong with an invalid text, without its secrets.
    pub flaw: fn(&str) -> Option<String>,
    /// The lines of the doc comment: meaning, unit and consequences.
    pub about: &'static [&'static str],
    /// The flag of the command line, if the setting has one.
    pub flag: Option<Flag>,
    /// Redacts the secrets in the text of a secret setting; `None` if the setting contains none. A secret
    /// setting has a twin `<key>-file`, which names a file with its text.
    pub redact: Option<fn(&str) -> String>,
}

/// The declaration of a command line flag that sets a setting.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// The name, without the leading hyphens.
    pub name: &'static str,
    /// The name of the value in the help; `None` if the flag has no value, and sets the setting to `true`.
    pub value_name: Option<&'static str>,
    /// The help, to which the default of the setting is added.
    pub help: &'static str,
    /// True if every command has the flag; otherwise only `serve` has it.
    pub is_global: bool,
}

impl Flag {
    /// Declares a flag with a value for every command.
    #[must_use]
    pub const fn of_every_command(name: &'static str, value_name: &'static str, help: &'static str) -> Self {
        Self { name, value_name: Some(value_name), help, is_global: true }
    }

    /// Declares a flag with a value for `serve`.
    #[must_use]
    pub const fn of_serve(name: &'static str, value_name: &'static str, help: &'static str) -> Self {
        Self { name, value_name: Some(value_name), help, is_global: false }
    }

    /// Declares a flag without a value for `serve`.
    #[must_use]
    pub const fn switch_of_serve(name: &'static str, help: &'static str) -> Self {
        Self { name, value_name: None, help, is_global: false }
    }
}

impl Setting {
    /// Returns `section.key`, the name of the setting in error messages.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.field.replace('_', "-"))
    }

    /// Returns the name of the environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}_{}", self.section, self.field).to_uppercase()
    }

    /// Returns `text` as it may be printed: the passwords in URLs are replaced by `***`, also where a setting
    /// accepts none.
    #[must_use]
    pub fn redacted(&self, text: &str) -> String {
        match self.redact {
            Some(redact) => redact(text),
            None if text.contains("://") && text.contains('@') => redacted(text),
            None => text.to_owned(),
        }
    }
}
