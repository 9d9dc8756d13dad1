//! A mailbox.
//!
//! The rules, and whose they are: the grammar is RFC 5321's dot-atom as the `email_address` crate reads it, with RFC 6531's
//! letters beyond ASCII; lengths are RFC 5321 section 4.5.3.1; the domain is what IDNA (UTS 46, strict) makes of it;
//! what is allowed beyond ASCII in the local part is UTS 39's, for which that report has email in mind (section 3.3.1).

use std::fmt;

use email_address::{EmailAddress, Options};
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::GeneralSecurityProfile as _;

/// The longest address, in octets: RFC 5321's path of 256 without its angle brackets; also the width of the column.
pub const EMAIL_OCTETS_MAX: usize = 254;
const LOCAL_PART_OCTETS_MAX: usize = 64;
/// What is worth normalising at all: beyond it no text can shrink to an address.
const INPUT_BYTES_MAX: usize = 1_024;

/// An address that mail can be sent to, in the one form that stands for its mailbox: NFC, lower case, domain in ASCII.
///
/// Lower-casing the local part is a choice: RFC 5321 leaves its meaning to the receiving host, but no host in use
/// gives `Ada@` and `ada@` to two people, and one mailbox must be one user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// Why a text is not an address that can register; the messages are for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// Nothing was typed.
    #[error("must not be empty")]
    Empty,
    /// More than [`EMAIL_OCTETS_MAX`], the domain counted in its ASCII form.
    #[error("must be at most {EMAIL_OCTETS_MAX} octets")]
    TooLong,
    /// More than 64 octets before the `@`.
    #[error("must have at most {LOCAL_PART_OCTETS_MAX} octets before the @")]
    LocalPartTooLong,
    /// White space, a line break or a control character anywhere, the ends included: nothing is trimmed here, so that
    /// what was stored is what was typed.
    #[error("must not contain spaces, line breaks or control characters, also not around it")]
    Blank,
    /// No `@` at all.
    #[error("must have an @ between the mailbox and its domain")]
    NoAt,
    /// `"…"@`: legal, but unknown to people, and the reader that differs from ours would find another domain in it.
    #[error("must not have a quoted part before the @")]
    Quoted,
    /// `=?…`: mail software may decode it into another address (RFC 2047).
    #[error("must not contain =?")]
    EncodedWord,
    /// A character beyond ASCII that UTS 39 keeps out of identifiers: invisible, look-alike by design, or not in use.
    #[error("must have only everyday letters and digits before the @")]
    Character,
    /// `@[192.0.2.1]` or a domain that is a bare number address.
    #[error("must have a domain name after the @, not a network address")]
    Literal,
    /// `@localhost`: not a name that the world can send to.
    #[error("must have a full domain after the @, as example.com")]
    Dotless,
    /// The domain is empty, too long, badly hyphenated, or not what IDNA allows.
    #[error("must have a valid domain after the @")]
    Domain,
    /// Anything else that the grammar does not know: `..`, a comment, a display name, several addresses.
    #[error("must be one plain address, as ada@example.com")]
    Grammar,
}

impl Email {
    /// Reads one plain address (no name, no brackets, no list) and brings it to its one form.
    ///
    /// Time is linear in `text`, and texts over 1,024 bytes are refused unread. `parse` of a parsed address gives it back.
    ///
    /// # Errors
    /// [`InvalidEmail`], the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        if text.is_empty() {
            return Err(InvalidEmail::Empty);
        }
        if text.len() > INPUT_BYTES_MAX {
            return Err(InvalidEmail::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidEmail::Blank);
        }

        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail::NoAt)?;
        let address = format!("{}@{}", local_part(local)?, domain_in_ascii(domain)?);

        if address.len() > EMAIL_OCTETS_MAX {
            return Err(InvalidEmail::TooLong);
        }
        in_grammar(&address).then_some(Self(address)).ok_or(InvalidEmail::Grammar)
    }

    /// An address that somebody has elsewhere and keeps though it breaks a rule: only its letters are brought to one case and form (NFC), so
    /// that one spelling is one user. No mail reaches most of them; their owners log in with them, and can take another.
    ///
    /// # Errors
    /// [`InvalidEmail::Empty`], [`InvalidEmail::TooLong`] and, for what no database holds, [`InvalidEmail::Blank`].
    pub fn keep(text: &str) -> Result<Self, InvalidEmail> {
        if text.is_empty() {
            return Err(InvalidEmail::Empty);
        }
        if text.len() > INPUT_BYTES_MAX {
            return Err(InvalidEmail::TooLong);
        }
        let address = one_case(text);
        if address.chars().nth(EMAIL_OCTETS_MAX).is_some() {
            return Err(InvalidEmail::TooLong);
        }
        if address.contains('\0') {
            return Err(InvalidEmail::Blank);
        }
        Ok(Self(address))
    }

    /// The address that the database holds; trusted, not read again.
    #[must_use]
    pub const fn from_stored(address: String) -> Self {
        Self(address)
    }

    /// The whole address, at most [`EMAIL_OCTETS_MAX`] octets when it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, taken out without a copy.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// What stands before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// What stands after the `@`: lower-case ASCII, `xn--` labels for what is not.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

fn local_part(text: &str) -> Result<String, InvalidEmail> {
    let local = one_case(text);

    if local.len() > LOCAL_PART_OCTETS_MAX {
        return Err(InvalidEmail::LocalPartTooLong);
    }
    if local.starts_with('"') {
        return Err(InvalidEmail::Quoted);
    }
    if local.contains("=?") {
        return Err(InvalidEmail::EncodedWord);
    }
    if local.chars().any(|c| !c.is_ascii() && !c.identifier_allowed()) {
        return Err(InvalidEmail::Character);
    }
    Ok(local)
}

/// Lower case in NFC. Normalised before, because case is defined on composed letters, and after, because it may undo it.
fn one_case(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

fn domain_in_ascii(text: &str) -> Result<String, InvalidEmail> {
    if text.starts_with('[') {
        return Err(InvalidEmail::Literal);
    }
    let domain = idna::domain_to_ascii_strict(text).map_err(|_| InvalidEmail::Domain)?;
    let (_, last_label) = domain.rsplit_once('.').ok_or(InvalidEmail::Dotless)?;

    if last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidEmail::Literal);
    }
    Ok(domain)
}

/// Whether the crate reads `address` as one plain mailbox.
///
/// RFC 6531 makes every character beyond ASCII an ordinary one (`atext`). The crate knows only letters and digits there, so
/// each stands before it as an `x`; [`local_part`] has decided which ones are welcome.
fn in_grammar(address: &str) -> bool {
    let in_ascii: String = address.chars().map(|c| if c.is_ascii() { c } else { 'x' }).collect();
    let plain = Options { minimum_sub_domains: 2, allow_domain_literal: false, allow_display_text: false };
    EmailAddress::parse_with_options(&in_ascii, plain).is_ok()
}

#[cfg(test)]
mod tests;
