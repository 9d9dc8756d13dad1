//! Passwords as users enter them, and hashes as the database stores them. The conversion from one to the
//! other is elsewhere (`crate::password`).

use std::fmt;

/// Maximum length in bytes of a password that is checked at a login. A longer one is refused before any work.
///
/// Larger than [`NEW_PASSWORD_BYTES_MAX`], because imported users may have longer passwords (Django's forms
/// allow 4,096).
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// Maximum length of a new password in bytes: enough for any phrase.
pub const NEW_PASSWORD_BYTES_MAX: usize = 1_024;

/// A password that was entered for authentication. It may be wrong, and it may violate every rule for new
/// passwords.
#[derive(Clone)]
pub struct Password(String);

/// Why an entered password cannot be the password of any user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// More than [`PASSWORD_BYTES_MAX`] bytes.
    #[error("must be at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

impl Password {
    /// Accepts `text` exactly as received: never normalized, trimmed or truncated.
    ///
    /// # Errors
    /// If it is empty or longer than [`PASSWORD_BYTES_MAX`].
    pub fn parse(text: String) -> Result<Self, InvalidPassword> {
        match text.len() {
            0 => Err(InvalidPassword::Empty),
            length if length > PASSWORD_BYTES_MAX => Err(InvalidPassword::TooLong),
            _ => Ok(Self(text)),
        }
    }

    /// Returns the secret, for hashing only.
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

/// A password that a user has chosen, whose length is within the bounds.
///
/// Whether it is easy to guess is decided by the policy in `crate::password`.
#[derive(Clone)]
pub struct NewPassword(String);

/// Why a chosen password was refused. The messages are for the end user who chose it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefusal {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// Fewer characters (Unicode code points) than the setting requires.
    #[error("must be at least {min} characters")]
    TooShort {
        /// The minimum number of characters, from the settings.
        min: u32,
    },
    /// More bytes of UTF-8 than a new password may have.
    #[error("must be at most {max_bytes} bytes")]
    TooLong {
        /// [`NEW_PASSWORD_BYTES_MAX`].
        max_bytes: usize,
    },
    /// The estimator expects too few guesses before an attacker finds it.
    #[error("is too easy to guess: {why}")]
    Guessable {
        /// What makes the password easy to guess.
        weakness: PasswordWeakness,
        /// The cause and a suggestion, in sentences. Contains nothing of the password.
        why: String,
    },
}

/// What makes a password easy to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordWeakness {
    /// It is a common password, or similar to one.
    Common,
    /// It is a row or a short pattern of keys.
    KeyboardPattern,
    /// It repeats characters or words.
    Repeats,
    /// It is a sequence, such as `abc` or `6543`.
    Sequence,
    /// It is a date or a recent year.
    Date,
    /// It is a single word.
    Word,
    /// It is a common name or surname.
    Name,
    /// Anything else: for example, it is short, or contains the username or the email.
    Other,
}

impl NewPassword {
    /// Accepts `text` exactly as received (as Django does): never normalized, trimmed or truncated.
    ///
    /// # Errors
    /// If it is empty, shorter than `length_min_characters` code points or longer than
    /// [`NEW_PASSWORD_BYTES_MAX`].
    pub fn parse(text: String, length_min_characters: u32) -> Result<Self, PasswordRefusal> {
        if text.is_empty() {
            return Err(PasswordRefusal::Empty);
        }
        if text.len() > NEW_PASSWORD_BYTES_MAX {
            return Err(PasswordRefusal::TooLong { max_bytes: NEW_PASSWORD_BYTES_MAX });
        }
        // `zip` ends the count at the minimum.
        if text.chars().zip(0..length_min_characters).count() < length_min_characters as usize {
            return Err(PasswordRefusal::TooShort { min: length_min_characters });
        }
        Ok(Self(text))
    }

    /// Returns the secret, for hashing and for the policy only.
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

/// The text of the column `password`: a hash in one of Django's formats, or any other text that was imported.
///
/// It is a secret too: an attacker who has it can guess the password offline.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps the text of the column, without validation: a hash that cannot be read must not hide the user of
    /// its row.
    #[must_use]
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the database and for the code that checks a password against it.
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
    fn an_entered_password_is_checked_for_length_only() {
        assert!(Password::parse("x".to_owned()).is_ok());
        assert!(Password::parse("x".repeat(4_096)).is_ok());
        assert_eq!(Password::parse("x".repeat(4_097)).unwrap_err(), InvalidPassword::TooLong);
        assert_eq!(Password::parse(String::new()).unwrap_err(), InvalidPassword::Empty);
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let entered = Password::parse("hunter2".to_owned()).unwrap();
        let hash = PasswordHash::from_stored("bcrypt$hunter2".to_owned());
        let shown = format!("{entered:?} {:?} {hash:?}", chosen("hunter2hunter2").unwrap());
        assert_eq!(shown, "Password(..) NewPassword(..) PasswordHash(..)");
    }

    #[test]
    fn refusals_state_the_rule() {
        assert_eq!(chosen("short").unwrap_err().to_string(), "must be at least 8 characters");
        assert_eq!(chosen(&"x".repeat(2_000)).unwrap_err().to_string(), "must be at most 1024 bytes");
    }
}
