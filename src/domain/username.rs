//! A display name that only one person can have.
//!
//! Three standards, each for what it is good at: the Nickname profile of PRECIS (RFC 8266) says what a display name looks
//! like, UTS 39 (highly restrictive) which letters may stand together without spelling a look-alike, and case folding over
//! NFKC when two names are one ([`Username::key`]).

use std::{borrow::Cow, fmt};

use super::AuthToken;
use precis_core::profile::{PrecisFastInvocation as _, stabilize};
use precis_profiles::Nickname;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};
use unicode_security::{GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _};

/// The longest name, in characters (code points) of its final form; the width of the column.
pub const USERNAME_CHARACTERS_MAX: usize = 150;
/// The longest [`Username::key`], in characters; the width of its column. Folding makes at most three characters of one.
pub const USERNAME_KEY_CHARACTERS_MAX: usize = 600;
/// What is worth reading at all: 150 characters of four bytes, and room for spaces that are trimmed away.
const INPUT_BYTES_MAX: usize = 1_024;
/// UTS 39 section 5.4: no writing system in use stacks more marks on one letter.
const STACKED_MARKS_MAX: usize = 4;

/// A display name, with the form that decides whether two are the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Username {
    display: String,
    key: String,
}

/// Why a text cannot be a name; the messages are for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// Nothing but spaces.
    #[error("must not be empty")]
    Empty,
    /// More than [`USERNAME_CHARACTERS_MAX`], or too long once folded, or too long to be read at all.
    #[error("must be at most {USERNAME_CHARACTERS_MAX} characters")]
    TooLong,
    /// An `@`, also in the forms that fold to it: a name must never be taken for an address.
    #[error("must not contain @")]
    At,
    /// A control, a joiner, a filler, a tag, or a mark that turns the direction of the text.
    #[error("must not contain control characters or characters that cannot be seen")]
    Invisible,
    /// A character that PRECIS or UTS 39 keeps out: emoji, symbols, private or unassigned ones, letters not in use.
    #[error("must have only everyday letters, digits, spaces and ASCII punctuation")]
    Character,
    /// Scripts that are not used together, as Latin and Cyrillic.
    #[error("must not mix writing systems that have letters which look alike")]
    MixedScripts,
    /// A combining mark without a letter before it, or more than four on one.
    #[error("must not pile up combining marks")]
    StackedMarks,
}

impl Username {
    /// Brings `text` to its one display form (NFKC, spaces trimmed and folded, as RFC 8266 enforces) and checks it.
    ///
    /// Time is linear in `text`, and texts over 1,024 bytes are refused unread. `parse` of [`Username::as_str`] gives
    /// the same name back.
    ///
    /// # Errors
    /// [`InvalidUsername`], the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidUsername> {
        if text.chars().take(INPUT_BYTES_MAX).all(char::is_whitespace) {
            return Err(InvalidUsername::Empty);
        }
        if text.len() > INPUT_BYTES_MAX {
            return Err(InvalidUsername::TooLong);
        }
        if text.chars().any(is_invisible) {
            return Err(InvalidUsername::Invisible);
        }

        let display = Nickname::enforce(text).map_err(|_| InvalidUsername::Character)?.into_owned();
        refuse_bad_display(&display)?;
        let key = folded(&display)?;

        Ok(Self { display, key })
    }

    /// A name that its owner has elsewhere and keeps letter by letter, though it breaks a rule or looks like another's. Its key is one that no
    /// parsed name has, made of what is unique to the owner: nobody is found by it, and nobody else is kept from a name.
    ///
    /// # Errors
    /// [`InvalidUsername::Empty`], [`InvalidUsername::TooLong`] and, for what no database holds, [`InvalidUsername::Invisible`].
    pub fn keep(text: &str, owner: AuthToken) -> Result<Self, InvalidUsername> {
        if text.is_empty() {
            return Err(InvalidUsername::Empty);
        }
        if text.chars().nth(USERNAME_CHARACTERS_MAX).is_some() {
            return Err(InvalidUsername::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidUsername::Invisible);
        }
        // No parsed name has an @, and folding a key never makes one.
        Ok(Self { display: text.to_owned(), key: format!("@{owner}") })
    }

    /// The name that the database holds; trusted, not read again.
    #[must_use]
    pub const fn from_stored(display: String, key: String) -> Self {
        Self { display, key }
    }

    /// The key under which a name that somebody looks for would be stored.
    ///
    /// # Errors
    /// [`InvalidUsername`] when nobody can have that name.
    pub fn comparison_key(text: &str) -> Result<String, InvalidUsername> {
        Self::parse(text).map(|username| username.key)
    }

    /// The name as it is shown, 1 to [`USERNAME_CHARACTERS_MAX`] characters when it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// The name to display, taken out without a copy.
    #[must_use]
    pub fn into_string(self) -> String {
        self.display
    }

    /// The form that uniqueness is judged by: two names with one key are one name.
    ///
    /// RFC 8266's comparison with full case folding instead of its lower-casing, so that `Straße` and `STRASSE` are one
    /// too. Folding a key gives the key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Username(..)")
    }
}

fn refuse_bad_display(display: &str) -> Result<(), InvalidUsername> {
    if display.chars().nth(USERNAME_CHARACTERS_MAX).is_some() {
        return Err(InvalidUsername::TooLong);
    }
    if display.contains('@') {
        return Err(InvalidUsername::At);
    }
    if display.chars().any(is_invisible) {
        return Err(InvalidUsername::Invisible);
    }
    if stacks_marks(display) {
        return Err(InvalidUsername::StackedMarks);
    }
    refuse_look_alikes(display)
}

/// Space and ASCII punctuation stand outside: UTS 39 judges identifiers, which have neither, and they belong to no script.
fn refuse_look_alikes(display: &str) -> Result<(), InvalidUsername> {
    let letters: String = display.chars().filter(|c| *c != ' ' && !c.is_ascii_punctuation()).collect();

    if !letters.chars().all(char::identifier_allowed) {
        return Err(InvalidUsername::Character);
    }
    if !letters.as_str().check_restriction_level(RestrictionLevel::HighlyRestrictive) {
        return Err(InvalidUsername::MixedScripts);
    }
    Ok(())
}

/// Whether a mark has no letter to stand on, or a letter more than [`STACKED_MARKS_MAX`] of them.
fn stacks_marks(display: &str) -> bool {
    let mut marks = STACKED_MARKS_MAX;
    display.chars().any(|c| {
        marks = match (is_combining_mark(c), c) {
            (true, _) => marks + 1,
            (false, ' ') => STACKED_MARKS_MAX,
            (false, _) => 0,
        };
        marks > STACKED_MARKS_MAX
    })
}

/// Controls, and what Unicode calls default-ignorable: shown as nothing, so that two names could look like one.
///
/// PRECIS refuses nearly all of them by itself; said here as well, for an error that helps and for the two joiners,
/// which it allows between some letters.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn folded(display: &str) -> Result<String, InvalidUsername> {
    let key = stabilize(display, |text| Ok(Cow::Owned(folded_once(text))));
    let key = key.map_err(|_| InvalidUsername::Character)?.into_owned();

    if key.chars().nth(USERNAME_KEY_CHARACTERS_MAX).is_some() {
        return Err(InvalidUsername::TooLong);
    }
    Ok(key)
}

/// Up and down again: what differs only in case meets on the way (ß and SS, ς and σ, ı and I), letter by letter.
fn folded_once(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

#[cfg(test)]
mod tests;
