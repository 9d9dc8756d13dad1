//! Classifies the values in the `password` column of a Django table. Only a complete parse distinguishes a
//! hash from a plaintext password that looks like one.

use super::format::{HashParseError, StoredHash};

/// The number of characters after the `!` of an unusable password:
/// `django.contrib.auth.hashers.UNUSABLE_PASSWORD_SUFFIX_LENGTH`.
const UNUSABLE_SUFFIX_LENGTH: usize = 40;

/// The class of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoredPassword {
    /// A hash that this service verifies; the text is the name of its scheme.
    Hash(&'static str),
    /// A hash whose parameters exceed the caps of this service. The user needs a password reset.
    TooExpensive,
    /// The mark that Django's `set_unusable_password` writes: the user has no password and needs a reset.
    Unusable,
    /// The empty text, which is no password. The user needs a password reset.
    Empty,
    /// A password in plaintext.
    Plaintext,
}

impl StoredPassword {
    /// Classifies a stored value. Every text belongs to one class.
    ///
    /// A plaintext password that has the form of a complete hash is classified as a hash, as in Django.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self::Empty;
        }
        if text.strip_prefix('!').is_some_and(is_unusable_suffix) {
            return Self::Unusable;
        }
        match StoredHash::parse(text) {
            Ok(hash) => Self::Hash(hash.scheme()),
            Err(HashParseError::TooExpensive) => Self::TooExpensive,
            // Unusable here: "!" with a suffix that is not of Django's marks, as in the password
            // "!important".
            Err(HashParseError::Unusable | HashParseError::UnknownScheme | HashParseError::Malformed) => {
                Self::Plaintext
            }
        }
    }

    /// True if a plaintext password begins like a hash: it may be a truncated hash or one of an unsupported
    /// scheme, and the user's real password may be another one.
    #[must_use]
    pub fn resembles_hash(plaintext: &str) -> bool {
        const PREFIXES: [&str; 9] =
            ["sha1$", "md5$", "crypt$", "unsalted_", "pbkdf2_", "bcrypt", "argon2", "scrypt$", "$2"];
        plaintext.contains('$') && PREFIXES.iter().any(|prefix| plaintext.starts_with(prefix))
    }

    /// Returns the name of the class in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hash(scheme) => scheme,
            Self::TooExpensive => "too_expensive",
            Self::Unusable => "unusable",
            Self::Empty => "empty",
            Self::Plaintext => "plaintext",
        }
    }
}

fn is_unusable_suffix(suffix: &str) -> bool {
    suffix.len() == UNUSABLE_SUFFIX_LENGTH && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{StoredPassword::*, *};

    #[test]
    fn only_a_complete_hash_is_a_hash() {
        for (text, is) in [
            (
                "bcrypt_sha256$$2b$12$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu",
                Hash("bcrypt_sha256"),
            ),
            ("md5$fcjYAjcFDiWEC0JLjVzYJg$8d4a6f30d2fa0a4a1ba3a3bf7b0b2a0f", Hash("md5")),
            ("pbkdf2_sha256$9000000$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=", TooExpensive),
            ("pbkdf2_sha256$99999999$a$b", Plaintext),
            ("scrypt$999999$a$8$1$b", Plaintext),
            ("", Empty),
            ("!aaaaaaaaaaBBBBBBBBBBccccccccccDDDDDDDDDD", Unusable),
            ("!important", Plaintext),
            ("!", Plaintext),
            ("bcrypt$mine", Plaintext),
            ("md5$$5f4dcc3b5aa765d61d8327deb882cf99", Plaintext),
            ("md5$salt$hash", Plaintext),
            ("md5$salt$5F4DCC3B5AA765D61D8327DEB882CF99", Plaintext),
            ("pbkdf2_sha256$1$salt$aGFzaA==", Plaintext),
            ("$2b$12$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu", Plaintext),
        ] {
            assert_eq!(StoredPassword::of(text), is, "{text}");
        }
    }
}
