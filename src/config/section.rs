//! A section of settings: one struct, declared together with its settings.

use super::{error::ConfigError, setting::Setting, sources::Sources};

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
/// field, `#[flag(..)]` declares its `Flag`, and `#[secret(..)]` the function that redacts its text.
macro_rules! section {
    // An attribute that a setting may lack, as an `Option`.
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

        impl $crate::config::section::Section for $name {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const SETTINGS: &'static [$crate::config::setting::Setting] = &[
                $( $crate::config::setting::Setting {
                    section: $section,
                    field: stringify!($field),
                    default: $default,
                    expects: <$value as $crate::config::value::Value>::expects,
                    accepts: |text| <$value as $crate::config::value::Value>::parse(text).is_some(),
                    suggests: <$value as $crate::config::value::Value>::suggestion,
                    flaw: <$value as $crate::config::value::Value>::flaw,
                    about: &[$($doc),+],
                    flag: $crate::config::section::section!(@option $($flag)?),
                    redact: $crate::config::section::section!(@option $($redact)?),
                }, )+
            ];

            fn read(sources: &$crate::config::sources::Sources) -> Result<Self, $crate::config::error::ConfigError> {
                let mut settings = <Self as $crate::config::section::Section>::SETTINGS.iter();
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
