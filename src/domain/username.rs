//! Usernames: unique display names.
//!
//! Three standards apply. The Nickname profile of PRECIS (RFC 8266) defines the form of a display name. UTS
//! 39 (highly restrictive) defines which scripts may be combined, so that one name does not mix letters that
//! look alike. Case folding over NFKC defines when two names are equal ([`Username::key`]).

mod link;

use std::{borrow::Cow, fmt};

use super::AuthToken;
use precis_core::profile::{PrecisFastInvocation as _, stabilize};
use precis_profiles::Nickname;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};
use unicode_security::{GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _};

/// Maximum length of a name in characters (code points) of its final form; the width of the column.
pub const USERNAME_CHARACTERS_MAX: usize = 150;
/// Maximum length of [`Username::key`] in characters; the width of its column. More than three times
/// [`USERNAME_CHARACTERS_MAX`], because folding turns one character into at most three.
pub const USERNAME_KEY_CHARACTERS_MAX: usize = 600;
/// Maximum length of a text that is processed: [`USERNAME_CHARACTERS_MAX`] characters of four bytes, and some
/// spaces that are trimmed.
const INPUT_BYTES_MAX: usize = 1_024;
/// Maximum number of combining marks on one letter. No writing system in use needs more (UTS 39, section
/// 5.4).
pub const STACKED_MARKS_MAX: usize = 4;

/// A display name, with the key that decides whether two names are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Username {
    display: String,
    key: String,
}

/// Why a text is not accepted as a username. The messages are for the end user who entered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// The text is empty or consists of white space.
    #[error("must not be empty")]
    Empty,
    /// More than [`USERNAME_CHARACTERS_MAX`] characters, too long after folding, or too long to be processed.
    #[error("must be at most {USERNAME_CHARACTERS_MAX} characters")]
    TooLong,
    /// An `@`, also in a form that normalizes to it: a username must never be mistaken for an email.
    #[error("must not contain @")]
    At,
    /// A control character, a joiner, a filler, a tag, or a mark that changes the direction of the text.
    #[error("must not contain control characters or invisible characters")]
    Invisible,
    /// A character that PRECIS or UTS 39 excludes: an emoji, a symbol, a private or unassigned character, a
    /// letter not in use.
    #[error("must contain only letters and digits in common use, spaces and ASCII punctuation")]
    Character,
    /// Scripts that are not used together, such as Latin and Cyrillic.
    #[error("must not mix writing systems with letters that look alike")]
    MixedScripts,
    /// A combining mark at the start or after a space, or more than `STACKED_MARKS_MAX` on one letter.
    #[error(
        "must have a letter before each combining mark, and at most {STACKED_MARKS_MAX} marks on a letter"
    )]
    StackedMarks,
    /// A web address, by the rules in `username/link.rs`: mail programs would turn it into a link. Names that
    /// exist already are not refused.
    #[error("must not contain a web address, such as https://, www. or name.com")]
    Link,
}

impl Username {
    /// Like [`Username::parse`], for a name that a user chooses now: it must not contain a web address
    /// either.
    ///
    /// # Errors
    /// [`InvalidUsername`]: the first rule that is violated.
    pub fn choose(text: &str) -> Result<Self, InvalidUsername> {
        let username = Self::parse(text)?;
        if username.holds_link() { Err(InvalidUsername::Link) } else { Ok(username) }
    }

    /// True if the name contains a web address. Only imported names, and names that an earlier release
    /// accepted, do.
    #[must_use]
    pub fn holds_link(&self) -> bool {
        link::holds_link(&self.display)
    }

    /// Converts `text` to its single display form (NFKC, with spaces trimmed and collapsed, as RFC 8266
    /// enforces) and checks it.
    ///
    /// Takes time linear in the length of `text`; a text over `INPUT_BYTES_MAX` is refused before it is
    /// converted. Parsing [`Username::as_str`] returns the same name.
    ///
    /// # Errors
    /// [`InvalidUsername`]: the first rule that is violated.
    pub fn parse(text: &str) -> Result<Self, InvalidUsername> {
        // `take` limits the work for a long text.
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
        check_display_form(&display)?;
        let key = folded(&display)?;

        Ok(Self { display, key })
    }

    /// Accepts the name of an imported user unchanged, although it may violate a rule or look like another
    /// name. Its key is derived from the owner's `auth_token` and is the key of no parsed name. So a look-up
    /// by username never finds this user, and the name blocks no name of another user.
    ///
    /// # Errors
    /// [`InvalidUsername::Empty`]; [`InvalidUsername::TooLong`]; [`InvalidUsername::Invisible`] for a NUL
    /// character, which PostgreSQL cannot store.
    pub fn parse_imported(text: &str, owner: AuthToken) -> Result<Self, InvalidUsername> {
        if text.is_empty() {
            return Err(InvalidUsername::Empty);
        }
        if text.chars().nth(USERNAME_CHARACTERS_MAX).is_some() {
            return Err(InvalidUsername::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidUsername::Invisible);
        }
        // No parsed name contains an @, and folding a key never produces one.
        Ok(Self { display: text.to_owned(), key: format!("{}{owner}", Self::KEPT_KEY_PREFIX) })
    }

    /// First character of the key of a name that an imported user keeps although it violates a rule or equals
    /// another name. No look-up finds such a key.
    pub const KEPT_KEY_PREFIX: char = '@';

    /// Wraps a name from the database, without validation.
    #[must_use]
    pub const fn from_stored(display: String, key: String) -> Self {
        Self { display, key }
    }

    /// Returns the key by which a user with this name is looked up.
    ///
    /// # Errors
    /// [`InvalidUsername`] if no user can have that name.
    pub fn comparison_key(text: &str) -> Result<String, InvalidUsername> {
        Self::parse(text).map(|username| username.key)
    }

    /// Returns the display name: 1 to [`USERNAME_CHARACTERS_MAX`] characters if it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// Returns the display name without a copy.
    #[must_use]
    pub fn into_string(self) -> String {
        self.display
    }

    /// Returns the key that decides uniqueness: two names with the same key are the same name.
    ///
    /// The comparison is that of RFC 8266 with full case folding instead of lower-casing, so that `Straße`
    /// and `STRASSE` are equal too. Folding a key returns the key.
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

fn check_display_form(display: &str) -> Result<(), InvalidUsername> {
    if display.chars().nth(USERNAME_CHARACTERS_MAX).is_some() {
        return Err(InvalidUsername::TooLong);
    }
    if display.contains('@') {
        return Err(InvalidUsername::At);
    }
    if display.chars().any(is_invisible) {
        return Err(InvalidUsername::Invisible);
    }
    if has_stacked_marks(display) {
        return Err(InvalidUsername::StackedMarks);
    }
    check_characters_and_scripts(display)
}

/// Refuses characters that UTS 39 excludes from identifiers, and scripts that are not used together. Ignores
/// spaces and ASCII punctuation, because identifiers contain neither.
fn check_characters_and_scripts(display: &str) -> Result<(), InvalidUsername> {
    let letters: String = display.chars().filter(|c| *c != ' ' && !c.is_ascii_punctuation()).collect();

    if !letters.chars().all(char::identifier_allowed) {
        return Err(InvalidUsername::Character);
    }
    if !letters.as_str().check_restriction_level(RestrictionLevel::HighlyRestrictive) {
        return Err(InvalidUsername::MixedScripts);
    }
    Ok(())
}

/// True if a combining mark begins the name or follows a space, or if more than [`STACKED_MARKS_MAX`] of them
/// follow one character.
fn has_stacked_marks(display: &str) -> bool {
    // At the start and after a space, one mark is already too many.
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

/// True for control characters, for what Unicode calls default-ignorable, for the blank Braille pattern and
/// for the marks of annotations: they are invisible, so two names could look the same.
///
/// PRECIS itself refuses nearly all of them. The check here returns a more helpful error, and covers the two
/// joiners, which PRECIS allows between some letters.
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

/// Converts each character to upper case and back to lower case. Characters that differ only in case become
/// equal (ß and SS, ς and σ, ı and I).
fn folded_once(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

#[cfg(test)]
mod tests;
