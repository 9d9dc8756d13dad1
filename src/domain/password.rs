//! Passwords as people type them, and hashes as the database keeps them. How one is made of the other is not known here.

use std::fmt;

/// The longest password that is looked at when somebody logs in; longer ones are refused before any work.
///
/// Wider than [`NEW_PASSWORD_BYTES_MAX`], because imported users may have longer ones (Django's forms allow 4,096).
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// The longest password that can be chosen: room for any phrase, and nothing that a mail or a form would choke on.
pub const NEW_PASSWORD_BYTES_MAX: usize = 1_024;

/// A password that somebody typed to prove who they are. It may be wrong, and it may break every rule for new ones.
#[derive(Clone)]
pub struct Password(String);

/// Why a typed password cannot be anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// Nothing was typed.
    #[error("must not be empty")]
    Empty,
    /// More than [`PASSWORD_BYTES_MAX`].
    #[error("must be at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

impl Password {
    /// Takes `text` exactly as received: never normalised, trimmed or cut.
    ///
    /// # Errors
    /// When it is empty or longer than [`PASSWORD_BYTES_MAX`].
    pub fn parse(text: String) -> Result<Self, InvalidPassword> {
        match text.len() {
            0 => Err(InvalidPassword::Empty),
            length if length > PASSWORD_BYTES_MAX => Err(InvalidPassword::TooLong),
            _ => Ok(Self(text)),
        }
    }

    /// The secret itself, for hashing only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A password that somebody chose, long enough and not too long.
///
/// Whether it is guessable is for the policy of `crate::password` to say.
pub struct NewPassword(String);

/// Why a chosen password was refused; the messages are for the person who chose it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefusal {
    /// Nothing was typed.
    #[error("must not be empty")]
    Empty,
    /// Fewer characters (Unicode code points) than the setting asks for.
    #[error("must be at least {min} characters")]
    TooShort {
        /// The setting.
        min: u32,
    },
    /// More bytes of UTF-8 than are hashed.
    #[error("must be at most {max_bytes} bytes")]
    TooLong {
        /// [`NEW_PASSWORD_BYTES_MAX`].
        max_bytes: usize,
    },
    /// The estimator finds it in too few guesses.
    #[error("is too easy to guess: {why}")]
    Guessable {
        /// What makes it so and what would help, in sentences; nothing of the password itself.
        why: String,
    },
}

impl NewPassword {
    /// Takes `text` exactly as received (as Django does): never normalised, trimmed or cut.
    ///
    /// # Errors
    /// When it is empty, shorter than `length_min_characters` code points or longer than [`NEW_PASSWORD_BYTES_MAX`].
    pub fn parse(text: String, length_min_characters: u32) -> Result<Self, PasswordRefusal> {
        if text.is_empty() {
            return Err(PasswordRefusal::Empty);
        }
        if text.len() > NEW_PASSWORD_BYTES_MAX {
            return Err(PasswordRefusal::TooLong { max_bytes: NEW_PASSWORD_BYTES_MAX });
        }
        if text.chars().zip(0..length_min_characters).count() < length_min_characters as usize {
            return Err(PasswordRefusal::TooShort { min: length_min_characters });
        }
        Ok(Self(text))
    }

    /// The secret itself, for hashing and judging only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewPassword(..)")
    }
}

/// What the column `password` holds: a hash in one of Django's formats, or whatever an import left there.
///
/// Secret too: it is what an attacker takes home to guess at.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The column's text, unchecked: a row that nobody can read must not hide the user it belongs to.
    #[must_use]
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text for the database, or for whoever checks a password against it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Result<NewPassword, PasswordRefusal> {
        NewPassword::parse(text.to_owned(), 8)
    }

    #[test]
    fn a_password_is_kept_exactly_as_received() {
        for text in ["  spaces at the ends  ", "nul\0inside", "e\u{301} is not \u{e9}", "🔑🔑🔑🔑🔑🔑🔑🔑"]
        {
            assert_eq!(Password::parse(text.to_owned()).unwrap().expose(), text);
            assert_eq!(chosen(text).unwrap().expose(), text);
        }
    }

    #[test]
    fn length_is_counted_in_characters_and_bounded_in_bytes() {
        assert!(chosen("éééééééé").is_ok());
        assert_eq!(chosen("ééééééé").unwrap_err(), PasswordRefusal::TooShort { min: 8 });
        assert!(chosen(&"x".repeat(1_024)).is_ok());
        assert_eq!(chosen(&"x".repeat(1_025)).unwrap_err(), PasswordRefusal::TooLong { max_bytes: 1_024 });
        assert_eq!(NewPassword::parse(String::new(), 0).unwrap_err(), PasswordRefusal::Empty);
    }

    #[test]
    fn a_typed_password_is_only_bounded() {
        assert!(Password::parse("x".to_owned()).is_ok());
        assert!(Password::parse("x".repeat(4_096)).is_ok());
        assert_eq!(Password::parse("x".repeat(4_097)).unwrap_err(), InvalidPassword::TooLong);
        assert_eq!(Password::parse(String::new()).unwrap_err(), InvalidPassword::Empty);
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let typed = Password::parse("hunter2".to_owned()).unwrap();
        let hash = PasswordHash::from_stored("bcrypt$hunter2".to_owned());
        let shown = format!("{typed:?} {:?} {hash:?}", chosen("hunter2hunter2").unwrap());
        assert_eq!(shown, "Password(..) NewPassword(..) PasswordHash(..)");
    }

    #[test]
    fn refusals_say_the_rule() {
        assert_eq!(chosen("short").unwrap_err().to_string(), "must be at least 8 characters");
        assert_eq!(chosen(&"x".repeat(2_000)).unwrap_err().to_string(), "must be at most 1024 bytes");
    }
}
