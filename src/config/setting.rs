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
        use super::{database_url::redacted_urls, url_text::redacted};
        match self.field {
            "url" => redacted(text),
            "read_urls" => redacted_urls(text),
            _ => text.to_owned(),
        }
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

/// Declares a section: a struct with one field per setting, each with its type and its default.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $section:literal {
            $( $(#[doc = $doc:literal])+ $field:ident: $value:ty = $default:literal, )+
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
