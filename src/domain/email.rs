//! Email addresses.
//!
//! The rules and their sources: the grammar is the dot-atom of RFC 5321 as the `email_address` crate parses
//! it, extended by the characters beyond ASCII of RFC 6531. The lengths are those of RFC 5321, section
//! 4.5.3.1. The domain is converted by IDNA (UTS 46, strict). Characters beyond ASCII in the local part are
//! limited to those that UTS 39 allows in identifiers; section 3.3.1 of that report applies it to email.

use std::fmt;

use email_address::{EmailAddress, Options};
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::GeneralSecurityProfile as _;

/// Maximum length of an address in octets: the path limit of RFC 5321, 256, without the angle brackets. Also
/// the width of the column.
pub const EMAIL_OCTETS_MAX: usize = 254;
/// Maximum length of the part before the `@` in octets: RFC 5321, section 4.5.3.1.1.
pub const LOCAL_PART_OCTETS_MAX: usize = 64;
/// Maximum length of a text that is processed. A longer one could become a valid address only by the removal
/// of invisible characters from its domain.
const INPUT_BYTES_MAX: usize = 1_024;

/// Maximum number of sigmas in an address of which every form is looked up: 2^4 = 16 forms. Hardly any
/// mailbox has more sigmas.
const SIGMAS_VARIED_MAX: u32 = 4;

/// An address that can receive mail, in the single form that represents its mailbox: NFC, lower case, domain
/// in ASCII.
///
/// The final form of sigma, `ς`, is the same letter as `σ`, as in upper case: a mailbox has one form however
/// its sigmas are written.
///
/// Lower-casing the local part is a deliberate choice. RFC 5321 leaves the meaning of its case to the
/// receiving host, but no host in use assigns `Ada@` and `ada@` to two users, and one mailbox must be one
/// user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// Why a text is not accepted as an email. The messages are for the end user who entered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// More than [`EMAIL_OCTETS_MAX`] octets, with the domain in its ASCII form.
    #[error("must be at most {EMAIL_OCTETS_MAX} octets")]
    TooLong,
    /// More than [`LOCAL_PART_OCTETS_MAX`] octets before the `@`.
    #[error("must have at most {LOCAL_PART_OCTETS_MAX} octets before the @")]
    LocalPartTooLong,
    /// White space, a line break or a control character anywhere, also at the start or end: nothing is
    /// trimmed.
    #[error("must not contain spaces, line breaks or control characters, also not at its start or end")]
    Blank,
    /// No `@`.
    #[error("must have an @ between the mailbox and its domain")]
    NoAt,
    /// `"..."@`: legal but unusual, and a parser that differs from this one could find another domain in it.
    #[error("must not have a quoted part before the @")]
    Quoted,
    /// `=?...`: mail software may decode it into another address (RFC 2047).
    #[error("must not contain =?")]
    EncodedWord,
    /// A character beyond ASCII that UTS 39 excludes from identifiers: invisible, confusable by design, or
    /// not in use.
    #[error("must not have uncommon or invisible characters before the @")]
    Character,
    /// `@[192.0.2.1]`, or a domain that is a bare IP address.
    #[error("must have a domain name after the @, not a network address")]
    Literal,
    /// `@localhost`: a name that cannot receive mail from the internet.
    #[error("must have a full domain after the @, such as example.com")]
    Dotless,
    /// The domain is empty, too long, has misplaced hyphens, or is not allowed by IDNA.
    #[error("must have a valid domain after the @")]
    Domain,
    /// Any other violation of the grammar: `..`, a comment, a display name, several addresses.
    #[error("must be one plain address, such as ada@example.com")]
    Grammar,
}

impl Email {
    /// Reads one plain address (no display name, no brackets, no list) and converts it to its single form.
    ///
    /// Takes time linear in the length of `text`; a text over `INPUT_BYTES_MAX` is refused unread. Parsing a
    /// parsed address returns the same address.
    ///
    /// # Errors
    /// [`InvalidEmail`]: the first rule that is violated.
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
        is_plain_mailbox(&address).then_some(Self(address)).ok_or(InvalidEmail::Grammar)
    }

    /// Accepts an address of an imported user although it may violate the rules. Only letter case, the form
    /// of sigma and the Unicode form (NFC) are changed, so that one spelling is one user. Most addresses that
    /// violate the rules receive no mail, but their users can log in with them and change them.
    ///
    /// # Errors
    /// [`InvalidEmail::Empty`]; [`InvalidEmail::TooLong`] for more than `INPUT_BYTES_MAX`, or
    /// [`EMAIL_OCTETS_MAX`] characters after the conversion; [`InvalidEmail::Blank`] for a NUL character,
    /// which PostgreSQL cannot store.
    pub fn parse_imported(text: &str) -> Result<Self, InvalidEmail> {
        if text.is_empty() {
            return Err(InvalidEmail::Empty);
        }
        if text.len() > INPUT_BYTES_MAX {
            return Err(InvalidEmail::TooLong);
        }
        let address = lower_case_nfc(text);
        if address.chars().nth(EMAIL_OCTETS_MAX).is_some() {
            return Err(InvalidEmail::TooLong);
        }
        if address.contains('\0') {
            return Err(InvalidEmail::Blank);
        }
        Ok(Self(address))
    }

    /// Wraps an address from the database, without validation.
    #[must_use]
    pub const fn from_stored(address: String) -> Self {
        Self(address)
    }

    /// Returns the whole address: at most [`EMAIL_OCTETS_MAX`] octets if it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address without a copy.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Returns the forms in which the store may hold this address: this one, and those of earlier releases.
    #[must_use]
    pub fn stored_forms(&self) -> Vec<Self> {
        std::iter::once(self.clone()).chain(self.earlier_forms()).collect()
    }

    /// Returns the other forms of this address that earlier releases may have stored: they kept each sigma as
    /// it was entered. Empty for an address without a sigma. With more than four sigmas, only the form
    /// without `ς` is among them.
    #[must_use]
    pub fn earlier_forms(&self) -> Vec<Self> {
        let sigmas = self.0.matches(['σ', 'ς']).count();
        let forms = match u32::try_from(sigmas) {
            Ok(count @ 0..=SIGMAS_VARIED_MAX) => 2_u32.pow(count),
            _ => 1,
        };
        // Each bit decides the form of one sigma.
        let form = |bits: u32| {
            let mut sigma = 0;
            let written = self.0.chars().map(|character| {
                if !matches!(character, 'σ' | 'ς') {
                    return character;
                }
                sigma += 1;
                if bits.checked_shr(sigma - 1).unwrap_or(0) & 1 == 1 { 'ς' } else { 'σ' }
            });
            Self(written.collect())
        };
        (0..forms).map(form).filter(|form| form != self).collect()
    }

    /// Returns the mailbox and the domain to which mail can be sent; `None` for an address of an imported
    /// user that violates the rules. Every parsed address is returned unchanged.
    #[must_use]
    pub fn mailbox(&self) -> Option<(&str, String)> {
        let parsed = Self::parse(&self.0).ok()?;
        Some((self.local_part(), parsed.domain().to_owned()))
    }

    /// Returns the part before the last `@`; the whole text if there is none.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// Returns the part after the last `@`. If the address was parsed, it is lower-case ASCII, with `xn--`
    /// labels for other scripts. Empty if there is no `@`.
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
    let local = lower_case_nfc(text);

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

/// Converts to lower case in NFC, character by character. Normalizes before, because case is defined on
/// composed letters, and after, because lower-casing can undo the normalization.
fn lower_case_nfc(text: &str) -> String {
    let lower: String = text.nfc().flat_map(char::to_lowercase).nfc().collect();
    if lower.contains(['σ', 'ς']) { with_greek_spelling(&lower) } else { lower }
}

/// Writes each sigma as Greek does: `ς` after a letter and not before one, otherwise `σ`. The sigmas of the
/// text do not matter, so every spelling of a mailbox has the same result. Mail is sent to this form, because
/// real mailboxes are spelled so.
fn with_greek_spelling(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut is_after_letter = false;
    while let Some(character) = characters.next() {
        let is_before_letter = characters.peek().is_some_and(|next| next.is_alphabetic());
        written.push(match character {
            'σ' | 'ς' if is_after_letter && !is_before_letter => 'ς',
            'σ' | 'ς' => 'σ',
            other => other,
        });
        is_after_letter = character.is_alphabetic();
    }
    written
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

/// True if the crate parses `address` as one plain mailbox.
///
/// RFC 6531 treats every character beyond ASCII as an ordinary one (`atext`). The crate accepts only letters
/// and digits among them, so each is replaced by an `x` for this check; [`local_part`] has already decided
/// which characters are accepted.
fn is_plain_mailbox(address: &str) -> bool {
    let in_ascii: String = address.chars().map(|c| if c.is_ascii() { c } else { 'x' }).collect();
    let plain = Options { minimum_sub_domains: 2, allow_domain_literal: false, allow_display_text: false };
    EmailAddress::parse_with_options(&in_ascii, plain).is_ok()
}

#[cfg(test)]
mod tests;
