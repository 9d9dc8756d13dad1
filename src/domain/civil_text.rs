//! The text of a timestamp as date and time in UTC, `YYYY-MM-DD HH:MM:SS.ffffff`, which Django writes too. It
//! sorts by time.

use time::{Date, Month, OffsetDateTime, Time};

use super::Timestamp;

/// Formats a timestamp as `YYYY-MM-DD HH:MM:SS.ffffff`.
///
/// # Errors
/// The error of [`time`] if the timestamp is outside of the years that it supports.
pub fn to_civil_text(at: Timestamp) -> Result<String, time::error::ComponentRange> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.unix_micros()) * 1_000)?;
    let (date, time) = (at.date(), at.time());
    Ok(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    ))
}

/// Parses `YYYY-MM-DD HH:MM:SS.ffffff`; `None` for any other text. Reads the fixed positions without a format
/// library, which would take as long as the query of a look-up.
#[must_use]
pub fn from_civil_text(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':'), (19, b'.')];
    if bytes.len() != 26 || separators.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) {
        return None;
    }
    let date = Date::from_calendar_date(
        i32::try_from(decimal(bytes, 0, 4)?).ok()?,
        Month::try_from(u8::try_from(decimal(bytes, 5, 2)?).ok()?).ok()?,
        u8::try_from(decimal(bytes, 8, 2)?).ok()?,
    );
    let time = Time::from_hms_micro(
        u8::try_from(decimal(bytes, 11, 2)?).ok()?,
        u8::try_from(decimal(bytes, 14, 2)?).ok()?,
        u8::try_from(decimal(bytes, 17, 2)?).ok()?,
        decimal(bytes, 20, 6)?,
    );
    let at = OffsetDateTime::new_utc(date.ok()?, time.ok()?);
    Some(Timestamp::from_unix_micros(at.unix_timestamp() * 1_000_000 + i64::from(at.microsecond())))
}

/// Returns the decimal number of `length` digits (at most 6) at `start`.
fn decimal(bytes: &[u8], start: usize, length: usize) -> Option<u32> {
    bytes
        .get(start..start + length)?
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timestamps_of_years_0_to_9999_round_trip_as_text(micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let at = Timestamp::from_unix_micros(micros);
            let text = to_civil_text(at).unwrap();
            prop_assert_eq!(text.len(), 26);
            prop_assert_eq!(from_civil_text(&text), Some(at));
        }
    }

    #[test]
    fn timestamp_text_in_another_form_is_rejected() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T10:00:00.000000",
            "2026-13-01 00:00:00.000000",
            "2026-11-23 10:00:00.00000x",
        ] {
            assert_eq!(from_civil_text(text), None, "{text}");
        }
    }

    #[test]
    fn timestamp_text_has_the_format_of_django() {
        assert_eq!(
            to_civil_text(Timestamp::from_unix_micros(1_700_000_000_000_001)).unwrap(),
            "2023-11-14 22:13:20.000001"
        );
    }
}
