//! Lists that are read a page at a time (AIP-158).

use super::fields::Fields;
use crate::{
    accounts::{PageTokens, Place},
    domain::Timestamp,
};

const SIZE_DEFAULT: i32 = 100;
const SIZE_MAX: i32 = 1_000;

/// The seconds of 0001-01-01 and of 9999-12-31: what `google.protobuf.Timestamp` may say.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Which page of which list.
pub(super) struct Page {
    list: Vec<u8>,
    size: usize,
    /// The end of the page before; nothing for the first.
    pub after: Option<Place>,
}

impl Page {
    /// Reads `page_size` and `page_token`; `list` is all that the token must fit to.
    pub fn parse(
        fields: &mut Fields,
        tokens: &PageTokens,
        list: Vec<u8>,
        size: i32,
        token: &str,
    ) -> Option<Self> {
        let size = if size == 0 { SIZE_DEFAULT } else { size };
        let in_bounds = (1..=SIZE_MAX).contains(&size).then(|| usize::try_from(size).ok()).flatten();
        let size = fields.take("page_size", in_bounds.ok_or(format!("must be 0 to {SIZE_MAX}")));
        let after = match token {
            "" => Some(None),
            token => fields.take("page_token", tokens.read(&list, token).map(Some)),
        };
        Some(Self { size: size?, after: after?, list })
    }

    /// One more than go on the page, so that it is known whether there is a next one.
    pub fn size_and_one(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// Keeps what goes on the page; gives the token of the next one, if there is more.
    pub fn next<T>(&self, tokens: &PageTokens, found: &mut Vec<T>, place: impl Fn(&T) -> Place) -> String {
        if found.len() <= self.size {
            return String::new();
        }
        found.truncate(self.size);
        found.last().map(|last| tokens.write(&self.list, place(last))).unwrap_or_default()
    }
}

/// The moment in a field, where there is one.
pub(super) fn moment(
    fields: &mut Fields,
    field: &str,
    at: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let at = at?;
    let micros = i64::from(at.nanos) / 1_000;
    let is_valid = SECONDS.contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos);
    let at = is_valid.then(|| Timestamp::from_unix_micros(at.seconds.saturating_mul(1_000_000) + micros));
    fields.take(field, at.ok_or("must be a time from the year 1 to 9999"))
}
