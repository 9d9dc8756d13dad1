//! The declaration of a setting. The TOML file, the variables, the flags, `--print-config` and
//! `docs/CONFIG.md` all use this one declaration.

use super::{ConfigError, sources::Sources};

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
        format!("KAIROS_IDENTITY_{}_{}", self.section, self.field).to_uppercase()
    }

    /// Returns `text` as it may be printed: the passwords in URLs are replaced by `***`.
    #[must_use]
    pub fn redacted(&self, text: &str) -> String {
        self.redact.map_or_else(|| text.to_owned(), |redact| redact(text))
    }
}

/// A section of settings.
pub trait Section: Sized {
    /// The lines of the section's description.
    const ABOUT: &'static [&'static str];
    /// The settings, in the order of the struct fields and of the documentation.
    const SETTINGS: &'static [Setting];

    /// Parses the value of each setting.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] for the first invalid value.
    fn read(sources: &Sources) -> Result<Self, ConfigError>;
}

/// Declares a section: a struct with one field per setting, each with its type and its default. Before a
/// field, `#[flag(..)]` declares its [`Flag`], and `#[secret(..)]` the function that redacts its text.
macro_rules! section {
    (@option) => { None };
    (@option $value:expr) => { Some($value) };
    (
        $(#[doc = $about:literal])+
        $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $(#[flag($flag:expr)])?
                $(#[secret($redact:expr)])?
                $field:ident: $value:ty = $default:literal,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $value, )+
        }

        impl $crate::config::setting::Section for $name {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const SETTINGS: &'static [$crate::config::setting::Setting] = &[
                $( $crate::config::setting::Setting {
                    section: $section,
                    field: stringify!($field),
                    default: $default,
                    expects: <$value as $crate::config::value::Value>::expects,
                    about: &[$($doc),+],
                    flag: $crate::config::setting::section!(@option $($flag)?),
                    redact: $crate::config::setting::section!(@option $($redact)?),
                }, )+
            ];

            fn read(sources: &$crate::config::sources::Sources) -> Result<Self, $crate::config::ConfigError> {
                let mut settings = <Self as $crate::config::setting::Section>::SETTINGS.iter();
                Ok(Self { $(
                    $field: {
                        let setting = settings.next().expect("SETTINGS has one entry for each field");
                        sources.value::<$value>(setting)?
                    },
                )+ })
            }
        }
    };
}

pub(super) use section;
