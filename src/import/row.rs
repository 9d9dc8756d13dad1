//! Parses a Django row into the user that it can become.

use sha2::{Digest, Sha256};

use super::candidate::{Candidate, UserState};
use crate::{
    django::DjangoRow,
    domain::{
        AuthToken, Email, InvalidEmail, InvalidUsername, PASSWORD_BYTES_MAX, Timestamp, Username,
        from_civil_text, to_civil_text,
    },
    password::StoredPassword,
    sealing::SealingKeys,
};

/// Width of the password column.
const PASSWORD_CHARACTERS_MAX: usize = 128;

/// Reasons why a row cannot become a user, whatever the operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowDefect {
    #[error("its {0} is NULL or not text")]
    NoText(&'static str),
    #[error("its auth_token is not a UUID")]
    AuthToken,
    #[error("its email cannot be stored: it {0}")]
    Email(InvalidEmail),
    #[error("its password hash is longer than {} characters or contains a NUL", PASSWORD_CHARACTERS_MAX)]
    Hash,
    #[error("its username contains a NUL")]
    Username,
    #[error("its {0} is not a time in Django's format, from the year 1 to 9999")]
    Time(&'static str),
    #[error("its is_verified is neither true nor false")]
    Flag,
}

/// A parsed row.
pub(super) struct ParsedRow {
    /// The user that the row can become, with the username as it is stored in the row.
    pub(super) candidate: Candidate,
    /// Class of the stored password.
    pub(super) password: StoredPassword,
    /// Times of creation and of the last change; `None` where the row has none.
    pub(super) times: (Option<Timestamp>, Option<Timestamp>),
    /// The rule that the email breaks.
    pub(super) email_breaks: Option<InvalidEmail>,
    /// The rule that the username breaks.
    pub(super) username_breaks: Option<InvalidUsername>,
    /// True if `is_verified` is stored as a text.
    pub(super) has_text_flag: bool,
}

impl ParsedRow {
    /// Parses a row into the user that it can become. Keeps an email or username that breaks a rule but can
    /// be stored, and returns the broken rule.
    ///
    /// # Errors
    /// [`RowDefect`] if a value of the row cannot be stored.
    pub(super) fn parse(row: &DjangoRow, key: &SealingKeys) -> Result<Self, RowDefect> {
        let text = |value: &Option<String>, name| value.clone().ok_or(RowDefect::NoText(name));
        let username = text(&row.username, "username")?;
        let row_email = text(&row.email, "email")?;
        let stored = text(&row.password, "password")?;
        let token = text(&row.auth_token, "auth_token")?;
        let auth_token = AuthToken::parse(&token).map_err(|_| RowDefect::AuthToken)?;

        let (email, email_breaks) = match Email::parse(&row_email) {
            Ok(email) => (email, None),
            Err(rule) => (Email::parse_imported(&row_email).map_err(RowDefect::Email)?, Some(rule)),
        };
        let password = StoredPassword::of(&stored);
        if is_stored_unchanged(password) && !fits_the_password_column(&stored) {
            return Err(RowDefect::Hash);
        }
        if username.contains('\0') {
            return Err(RowDefect::Username);
        }
        let parsed = Username::parse(&username);
        let is_verified = row.is_verified.as_deref().and_then(flag).ok_or(RowDefect::Flag)?;

        let times =
            (time(row.created_at.as_ref(), "created_at")?, time(row.updated_at.as_ref(), "updated_at")?);
        let row_digest = row_digest(auth_token, [&username, &row_email], times, is_verified);
        let candidate = Candidate {
            id: row.id,
            row_token: auth_token,
            auth_token,
            email,
            username_key: parsed.as_ref().ok().map(|name| name.key().to_owned()),
            username,
            is_verified,
            row_digest,
            password_digest: password_digest(&stored, password, key),
            user: None,
            state: UserState::New,
        };
        let has_text_flag =
            row.is_verified.as_deref().is_some_and(|text| !FLAGS.iter().any(|(known, _)| *known == text));
        Ok(Self { candidate, password, times, email_breaks, username_breaks: parsed.err(), has_text_flag })
    }

    /// Returns the times of creation and of the last change. If one is missing, the other one replaces it; if
    /// both are, `now` does.
    pub(super) fn times_or(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let (created, updated) = self.times;
        let created_at = created.or(updated).unwrap_or(now);
        (created_at, updated.unwrap_or(created_at))
    }
}

/// True if the stored text goes into the store unchanged.
pub(super) const fn is_stored_unchanged(password: StoredPassword) -> bool {
    match password {
        StoredPassword::Hash(_) | StoredPassword::TooExpensive | StoredPassword::Unusable => true,
        StoredPassword::Empty | StoredPassword::Plaintext => false,
    }
}

/// True if the password column can hold this text.
fn fits_the_password_column(stored: &str) -> bool {
    !stored.contains('\0') && stored.chars().count() <= PASSWORD_CHARACTERS_MAX
}

/// True if no login accepts a plaintext password of this length.
pub(super) const fn is_too_long(plaintext: &str) -> bool {
    plaintext.len() > PASSWORD_BYTES_MAX
}

/// Returns the SHA-256 of all values but the password, the texts each with its length. It does not depend on
/// how the engine of the row writes UUIDs, times and booleans.
fn row_digest(
    auth_token: AuthToken,
    texts: [&str; 2],
    (created_at, updated_at): (Option<Timestamp>, Option<Timestamp>),
    is_verified: bool,
) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(auth_token.to_string());
    for text in texts {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    for time in [created_at, updated_at] {
        digest.update([u8::from(time.is_some())]);
        digest.update(time.map_or(0, Timestamp::unix_micros).to_be_bytes());
    }
    digest.update([u8::from(is_verified)]);
    digest.finalize().into()
}

/// Returns the digest by which a later run recognizes that the password in the row has changed. For plaintext
/// it is keyed: the password could be guessed from the digest of a fast hash without a key.
fn password_digest(stored: &str, form: StoredPassword, key: &SealingKeys) -> [u8; 32] {
    if form == StoredPassword::Plaintext {
        key.fingerprint(stored.as_bytes())
    } else {
        digest_of_hash(stored)
    }
}

/// Returns the digest of a password that is stored as a hash.
pub(super) fn digest_of_hash(stored: &str) -> [u8; 32] {
    Sha256::digest(stored).into()
}

/// The forms of a boolean that was stored as one.
const FLAGS: [(&str, bool); 2] = [("1", true), ("0", false)];

/// Parses a boolean, also one that was stored as a text: as Python writes it (`True`), or PostgreSQL (`t`).
/// Returns `None` for any other value: it is not guessed.
fn flag(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let texts = [("true", true), ("false", false), ("t", true), ("f", false)];
    FLAGS.iter().chain(&texts).find(|(known, _)| *known == lower).map(|(_, flag)| *flag)
}

/// Parses a time as Django writes it: in UTC, with a space between date and time, and without a fraction if
/// it is zero.
fn time(text: Option<&String>, column: &'static str) -> Result<Option<Timestamp>, RowDefect> {
    let Some(text) = text else { return Ok(None) };
    let rfc_3339 = text.replacen(' ', "T", 1);
    // Date and time have 19 characters; the fraction and the zone follow.
    let has_zone =
        rfc_3339.ends_with('Z') || rfc_3339.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
    let rfc_3339 = if has_zone { rfc_3339 } else { rfc_3339 + "Z" };
    // The conversion to UTC may lead out of the years that the store holds, and it changes a leap second.
    // Such times are refused.
    let is_kept = |at: &Timestamp| {
        let text = to_civil_text(*at).unwrap_or_default();
        !text.starts_with("0000") && from_civil_text(&text) == Some(*at)
    };
    let is_leap_second = rfc_3339.get(16..19) == Some(":60");
    // Django and PostgreSQL store microseconds. More digits would be cut off.
    let fraction = rfc_3339.get(19..).unwrap_or_default().trim_start_matches('.');
    let digits = fraction.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
    let is_too_precise = digits.get(6..).is_some_and(|rest| rest.contains(|digit| digit != '0'));
    let at = Timestamp::parse(&rfc_3339).filter(|at| is_kept(at) && !is_leap_second && !is_too_precise);
    at.map(Some).ok_or(RowDefect::Time(column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> DjangoRow {
        DjangoRow {
            id: 7,
            username: Some("Ada".to_owned()),
            email: Some("Ada@Example.com".to_owned()),
            password: Some("hunter2".to_owned()),
            is_verified: Some("1".to_owned()),
            auth_token: Some("0e1f3a527f5b4a4e9d5b0c5a5b0b7f11".to_owned()),
            created_at: Some("2023-03-26 00:59:59".to_owned()),
            updated_at: None,
        }
    }

    fn key() -> SealingKeys {
        SealingKeys::parse("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap()
    }

    fn refusal(change: impl FnOnce(&mut DjangoRow)) -> String {
        let mut changed = row();
        change(&mut changed);
        ParsedRow::parse(&changed, &key()).err().unwrap().to_string()
    }

    #[test]
    fn a_row_is_parsed_and_missing_times_are_filled_in() {
        let parsed = ParsedRow::parse(&row(), &key()).unwrap();
        assert_eq!(parsed.candidate.email.as_str(), "ada@example.com");
        assert_eq!(parsed.candidate.auth_token.to_string(), "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11");
        assert_eq!(parsed.password, StoredPassword::Plaintext);
        let now = Timestamp::from_unix_micros(0);
        let created = Timestamp::parse("2023-03-26T00:59:59Z").unwrap();
        assert_eq!(parsed.times_or(now), (created, created));
        let without_times = DjangoRow { created_at: None, ..row() };
        assert_eq!(ParsedRow::parse(&without_times, &key()).unwrap().times_or(now), (now, now));
    }

    #[test]
    fn times_are_parsed_to_the_microsecond() {
        for (text, rfc_3339) in [
            ("2023-03-26 00:59:59.000001", "2023-03-26T00:59:59.000001Z"),
            ("2023-03-26 00:59:59.1", "2023-03-26T00:59:59.100000Z"),
            ("2023-03-26T00:59:59+00:00", "2023-03-26T00:59:59.000000Z"),
            ("2023-03-26 00:59:59.1200000", "2023-03-26T00:59:59.120000Z"),
        ] {
            let at = time(Some(&text.to_owned()), "created_at").unwrap().unwrap();
            assert_eq!(at.to_string(), rfc_3339);
        }
    }

    #[test]
    fn a_row_that_cannot_become_a_user_is_refused_with_the_reason() {
        assert!(refusal(|row| row.auth_token = Some("7".to_owned())).contains("not a UUID"));
        assert!(refusal(|row| row.email = Some(String::new())).contains("must not be empty"));
        assert!(refusal(|row| row.username = None).contains("username is NULL"));
        for time in [
            "yesterday",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "0000-01-01 00:00:00",
            "10000-01-01 00:00:00",
            "9999-12-31 23:59:59-01:00",
            "0001-01-01 00:00:00+01:00",
            "2016-12-31 23:59:60",
            "2023-03-26 00:59:59.1234567",
            "2023-03-26 00:59:59.0000001+00:00",
        ] {
            assert!(refusal(|row| row.created_at = Some(time.to_owned())).contains("created_at"), "{time}");
        }
        for flag in ["yes", "2", "-1", "0.5", "", "tr", "on"] {
            let refusal = refusal(|row| row.is_verified = Some(flag.to_owned()));
            assert!(refusal.contains("is_verified"), "{flag}: {refusal}");
        }
        assert!(refusal(|row| row.is_verified = None).contains("is_verified"));
        let long = format!("md5${}$e070633e079062bc5709a6d9c9fbaa69", "s".repeat(100));
        assert!(refusal(|row| row.password = Some(long)).contains("longer than 128"));
        assert!(refusal(|row| row.username = Some("a\0".to_owned())).contains("NUL"));
    }

    #[test]
    fn a_boolean_that_is_stored_as_text_is_understood_and_has_the_digest_of_the_boolean() {
        let parsed = |flag: &str| {
            let row = DjangoRow { is_verified: Some(flag.to_owned()), ..row() };
            ParsedRow::parse(&row, &key()).unwrap()
        };
        for (flag, expected) in
            [("True", true), ("t", true), ("TRUE", true), ("true", true), ("False", false), ("F", false)]
        {
            let parsed_flag = parsed(flag);
            assert!(parsed_flag.has_text_flag, "{flag}");
            assert_eq!(parsed_flag.candidate.is_verified, expected, "{flag}");
            let stored = parsed(if expected { "1" } else { "0" });
            assert!(!stored.has_text_flag);
            assert_eq!(parsed_flag.candidate.row_digest, stored.candidate.row_digest);
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_how_an_engine_writes_a_value() {
        let postgres = DjangoRow {
            auth_token: Some("0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11".to_owned()),
            created_at: Some("2023-03-26 00:59:59.000000".to_owned()),
            ..row()
        };
        let digest = |row: &DjangoRow| ParsedRow::parse(row, &key()).unwrap().candidate.row_digest;
        assert_eq!(digest(&row()), digest(&postgres));
        let changed = DjangoRow { updated_at: postgres.created_at.clone(), ..postgres };
        assert_ne!(digest(&row()), digest(&changed));
    }

    #[test]
    fn the_digest_of_a_plaintext_password_is_keyed() {
        let digest = |password: &str| {
            let row = DjangoRow { password: Some(password.to_owned()), ..row() };
            ParsedRow::parse(&row, &key()).unwrap().candidate.password_digest
        };
        assert_eq!(digest("hunter2"), digest("hunter2"));
        assert_ne!(digest("hunter2"), digest("hunter3"));
        let bare: [u8; 32] = Sha256::digest("hunter2").into();
        assert_ne!(digest("hunter2"), bare);
    }
}
