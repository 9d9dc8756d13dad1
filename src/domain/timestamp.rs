//! A moment, to the microsecond.

use std::{fmt, time::Duration};

use time::{
    OffsetDateTime, UtcDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// RFC 3339, UTC, always six digits of fraction, so that text order is time order.
const RFC_3339_MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A moment in UTC, in microseconds since the Unix epoch: as fine as both databases keep time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after 1970-01-01T00:00:00Z; before it when negative.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Reads a moment as RFC 3339 writes it, of any offset; parts of a microsecond are dropped. Nothing for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let civil = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(civil.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// The moment `duration` later, or the last one there is. Parts of a microsecond are dropped.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// The moment `duration` earlier, or the first one there is. Parts of a microsecond are dropped.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// The last whole second before it or at it.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(1_000_000)))
    }

    /// How long after `earlier` this is; nothing when it is before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        if micros > 0 { Duration::from_micros(micros.unsigned_abs()) } else { Duration::ZERO }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with microseconds, as `2026-11-23T19:40:06.123456Z`.
///
/// RFC 3339 ends with the year 9999: a moment beyond what a calendar of four-digit years can say is shown as its number of
/// microseconds.
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
    fn is_shown_as_rfc_3339_with_microseconds() {
        assert_eq!(Timestamp::from_unix_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Timestamp::from_unix_micros(1_795_462_806_123_456).to_string(),
            "2026-11-23T19:40:06.123456Z"
        );
        assert_eq!(Timestamp::from_unix_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn is_read_as_it_is_shown() {
        let micros = |text| Timestamp::parse(text).map(Timestamp::unix_micros);
        assert_eq!(micros("2026-11-23T19:40:06.123456Z"), Some(1_795_462_806_123_456));
        assert_eq!(micros("2026-11-23T20:40:06+01:00"), Some(1_795_462_806_000_000));
        assert_eq!(micros("1969-12-31T23:59:59.9999999Z"), Some(-1));
        for text in ["", "yesterday", "2026-11-23", "2026-11-23 19:40", "2026-13-01T00:00:00Z"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn moments_beyond_the_calendar_are_still_shown() {
        assert_eq!(Timestamp::from_unix_micros(i64::MAX).to_string(), "9223372036854775807 µs");
        assert_eq!(Timestamp::from_unix_micros(i64::MIN).to_string(), "-9223372036854775808 µs");
    }

    #[test]
    fn moves_by_durations_and_stops_at_its_ends() {
        let noon = Timestamp::from_unix_micros(1_000_000);
        assert_eq!(noon.plus(Duration::from_millis(2)).unix_micros(), 1_002_000);
        assert_eq!(noon.minus(Duration::from_secs(2)).unix_micros(), -1_000_000);
        assert_eq!(noon.plus(Duration::from_secs(3)).since(noon), Duration::from_secs(3));
        assert_eq!(noon.since(noon.plus(Duration::from_secs(3))), Duration::ZERO);
        assert_eq!(noon.plus(Duration::MAX).unix_micros(), i64::MAX);
        assert_eq!(noon.minus(Duration::MAX).minus(Duration::MAX).unix_micros(), i64::MIN);
    }
}
