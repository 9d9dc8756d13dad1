//! Points in time, in microseconds.

use std::{fmt, time::Duration};

use time::{
    OffsetDateTime, UtcDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// RFC 3339 in UTC, always with six digits of fraction, so that the text sorts by time.
const RFC_3339_MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A point in time in UTC, in microseconds since the Unix epoch: the precision of both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates the time `micros` microseconds after 1970-01-01T00:00:00Z; before it, if negative.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Reads a time in RFC 3339 with any offset. Fractions of a microsecond are dropped. Returns `None` for
    /// any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let civil = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(civil.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Returns the time `duration` later, at most the last time that the type can represent. Fractions of a
    /// microsecond are dropped.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns the time `duration` earlier, at least the first time that the type can represent. Fractions of
    /// a microsecond are dropped.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Rounds down to a whole second.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(1_000_000)))
    }

    /// Returns the duration from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        if micros > 0 { Duration::from_micros(micros.unsigned_abs()) } else { Duration::ZERO }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with microseconds, such as `2026-11-23T19:40:06.123456Z`.
///
/// RFC 3339 covers the years 0 to 9999. A time outside of them is displayed as its number of microseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).map(UtcDateTime::from);
        match civil.ok().filter(|civil| civil.year() >= 0).map(|civil| civil.format(RFC_3339_MICROS)) {
            Some(Ok(text)) => f.write_str(&text),
            Some(Err(_)) | None => write!(f, "{} µs", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_displayed_as_rfc_3339_with_microseconds() {
        assert_eq!(Timestamp::from_unix_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Timestamp::from_unix_micros(1_795_462_806_123_456).to_string(),
            "2026-11-23T19:40:06.123456Z"
        );
        assert_eq!(Timestamp::from_unix_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn the_displayed_text_round_trips_and_other_texts_are_refused() {
        let micros = |text| Timestamp::parse(text).map(Timestamp::unix_micros);
        assert_eq!(micros("2026-11-23T19:40:06.123456Z"), Some(1_795_462_806_123_456));
        assert_eq!(micros("2026-11-23T20:40:06+01:00"), Some(1_795_462_806_000_000));
        assert_eq!(micros("1969-12-31T23:59:59.9999999Z"), Some(-1));
        for text in ["", "yesterday", "2026-11-23", "2026-11-23 19:40", "2026-13-01T00:00:00Z"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_displayed_as_microseconds() {
        assert_eq!(Timestamp::from_unix_micros(i64::MAX).to_string(), "9223372036854775807 µs");
        assert_eq!(Timestamp::from_unix_micros(i64::MIN).to_string(), "-9223372036854775808 µs");
    }

    #[test]
    fn addition_and_subtraction_saturate() {
        let time = Timestamp::from_unix_micros(1_000_000);
        assert_eq!(time.plus(Duration::from_millis(2)).unix_micros(), 1_002_000);
        assert_eq!(time.minus(Duration::from_secs(2)).unix_micros(), -1_000_000);
        assert_eq!(time.plus(Duration::from_secs(3)).since(time), Duration::from_secs(3));
        assert_eq!(time.since(time.plus(Duration::from_secs(3))), Duration::ZERO);
        assert_eq!(time.plus(Duration::MAX).unix_micros(), i64::MAX);
        assert_eq!(time.minus(Duration::MAX).minus(Duration::MAX).unix_micros(), i64::MIN);
    }
}
