//! Settings that are numbers: counts, bytes and durations, each with bounds.

use std::time::Duration;

use super::value::Value;

/// A whole number from `MIN` to `MAX`, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the number as a length.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl<const MIN: u32, const MAX: u32> Value for Count<MIN, MAX> {
    fn expects() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }
}

/// A number of bytes from `MIN` to `MAX`, written as `65536` or `64KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const MIN: u32, const MAX: u32>(Count<MIN, MAX>);

impl<const MIN: u32, const MAX: u32> Bytes<MIN, MAX> {
    /// Returns the number of bytes.
    #[must_use]
    pub const fn count(self) -> Count<MIN, MAX> {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> Value for Bytes<MIN, MAX> {
    fn expects() -> String {
        format!("a number of bytes from {MIN} to {MAX}, such as 65536 or 64KiB")
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let factor = match unit {
            "" | "B" => 1,
            "KiB" => 1_024,
            "MiB" => 1_024 * 1_024,
            _ => return None,
        };
        let bytes = u32::try_from(number.checked_mul(factor)?).ok()?;
        (MIN..=MAX).contains(&bytes).then_some(Self(Count(bytes)))
    }
}

/// A duration from `MIN` to `MAX` milliseconds, written as `500ms`, `10s`, `30m`, `24h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// Returns the duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Value for Span<MIN, MAX> {
    fn expects() -> String {
        let examples: Vec<_> = ["500ms", "10s", "30m", "24h", "7d"]
            .into_iter()
            .filter(|text| Self::parse(text).is_some())
            .collect();
        let examples = match examples.as_slice() {
            [] => String::new(),
            [single] => format!(", such as {single}"),
            [first @ .., last] => format!(", such as {} or {last}", first.join(", ")),
        };
        format!("a duration from {} to {}{examples}", formatted(MIN), formatted(MAX))
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let millis = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, factor)| number.checked_mul(*factor))?;
        (MIN..=MAX).contains(&millis).then(|| Self(Duration::from_millis(millis)))
    }

    /// Suggests seconds for a number without a unit.
    fn suggestion(text: &str) -> Option<String> {
        let seconds = format!("{}s", text.trim());
        Self::parse(&seconds).map(|_| seconds)
    }
}

/// The units of durations and their lengths in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Formats milliseconds in the largest unit of which they are a multiple.
fn formatted(millis: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", millis / factor))
}

/// Splits a text into its number and its unit. Spaces between them are allowed.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        let span = |text| Span::<500, 86_400_000>::parse(text).map(|span| span.get().as_millis());
        assert_eq!(span("500ms"), Some(500));
        assert_eq!(span("24h"), Some(86_400_000));
        assert_eq!(span("1 d"), Some(86_400_000));
        for text in ["", "5", "499ms", "2d", "-1s", "1.5s", "1w", "99999999999999999999s", "s", "1s "] {
            assert_eq!(span(text), None, "{text}");
        }
        assert!(Span::<500, 86_400_000>::expects().starts_with("a duration from 500ms to 1d"));
    }

    #[test]
    fn bytes_have_binary_units() {
        let bytes = |text| Bytes::<1, 1_048_576>::parse(text).map(|bytes| bytes.count().get());
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("1 MiB"), Some(1_048_576));
        assert_eq!(bytes("10"), Some(10));
        for text in ["0", "2MiB", "64KB", "4294967297MiB", "x"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_valid_only_for_optional_settings() {
        assert_eq!(Option::<PathBuf>::parse(""), Some(None));
        assert_eq!(PathBuf::parse(""), None);
        assert_eq!(Count::<1, 5>::parse(""), None);
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(Count::<1, 5>::parse("5"), Some(Count(5)));
        for text in ["0", "6", "-1", "1.5", "x"] {
            assert_eq!(Count::<1, 5>::parse(text), None, "{text}");
        }
    }
}
