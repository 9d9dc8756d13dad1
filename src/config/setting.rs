//! What a setting is: declared once, and from there known to the file, the variables, the flags, `--print-config` and
//! `docs/CONFIG.md`.

use super::{ConfigError, sources::Sources};

/// The declaration of one setting.
#[derive(Debug)]
pub struct Setting {
    /// Its section in the file.
    pub section: &'static str,
    /// Its field's name; the key has hyphens for the underscores.
    pub field: &'static str,
    /// The text that stands for it when nobody says otherwise; empty for unset.
    pub default: &'static str,
    /// What it expects, in words.
    pub expects: fn() -> String,
    /// Its meaning, unit and consequence: the doc comment.
    pub about: &'static [&'static str],
}

impl Setting {
    /// `section.key`, as errors name it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.field.replace('_', "-"))
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("KAIROS_IDENTITY_{}_{}", self.section, self.field).to_uppercase()
    }

    /// What `--print-config` may show of `text`: of URLs everything but their passwords.
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

/// A section of settings that can be read.
pub trait Section: Sized {
    /// What the section is for.
    const ABOUT: &'static [&'static str];
    /// Its settings, in the order of the documentation.
    const SETTINGS: &'static [Setting];

    /// Reads each setting.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] for the first that is not what was expected.
    fn read(sources: &Sources) -> Result<Self, ConfigError>;
}

/// Declares a section: a struct whose fields are settings, each with its type and its default.
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
                        let setting = settings.next().expect("there is one for each field");
                        sources.value::<$value>(setting)?
                    },
                )+ })
            }
        }
    };
}

pub(super) use section;
