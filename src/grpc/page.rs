//! Pagination of lists (AIP-158).

use prost::Message;

use super::{
    fields::Fields,
    page_tokens::{PageCursor, PageTokens},
    request_rule::{PAGE_SIZE_MAX, RequestRule},
};
use crate::domain::Timestamp;

const SIZE_DEFAULT: i32 = 100;

/// The range of `google.protobuf.Timestamp` in Unix seconds: from the start of the year 1 to the end of 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A request for a page of a list.
pub(super) trait PageRequest: Message {
    /// The name of the list, which differs from that of every other list.
    const LIST: &'static str;

    /// Takes `page_size` and `page_token` out of the request. The fields that remain are the filter.
    fn take_page(&mut self) -> (i32, String);
}

/// A requested page of a list.
pub(super) struct Page {
    /// The name of the list and its filter, to which a page token is bound.
    list: Vec<u8>,
    size: usize,
    /// The last entry of the previous page; `None` for the first page.
    pub after: Option<PageCursor>,
}

impl Page {
    /// Takes `page_size` and `page_token` out of the request, and parses them. The token of another list or
    /// filter is a violation. Returns `None` if it adds a violation to `fields`.
    pub fn parse<Request: PageRequest>(
        fields: &mut Fields,
        tokens: &PageTokens,
        request: &mut Request,
    ) -> Option<Self> {
        let (size, token) = request.take_page();
        let list = [Request::LIST.as_bytes(), b" ", &request.encode_to_vec()].concat();
        let size = if size == 0 { SIZE_DEFAULT } else { size };
        let in_bounds = (1..=PAGE_SIZE_MAX).contains(&size).then(|| usize::try_from(size).ok()).flatten();
        let size = fields.check("page_size", in_bounds.ok_or(RequestRule::PageSize));
        let after = match token.as_str() {
            "" => Some(None),
            token => fields.check("page_token", tokens.read(&list, token).map(Some)),
        };
        Some(Self { size: size?, after: after?, list })
    }

    /// The number of entries to query: one more than the page has, to detect whether there is a next page.
    pub fn query_limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// Truncates the entries found to the page size. Returns the token of the next page, or an empty string
    /// if this is the last page.
    pub fn next_page_token<T>(
        &self,
        tokens: &PageTokens,
        found: &mut Vec<T>,
        cursor: impl Fn(&T) -> PageCursor,
    ) -> String {
        if found.len() <= self.size {
            return String::new();
        }
        found.truncate(self.size);
        found.last().map(|last| tokens.write(&self.list, cursor(last))).unwrap_or_default()
    }
}

/// Parses an optional timestamp, with microsecond precision. Adds a violation if it is out of range.
pub(super) fn optional_timestamp(
    fields: &mut Fields,
    field: &str,
    at: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let at = at?;
    let micros = i64::from(at.nanos) / 1_000;
    let is_valid = TIMESTAMP_SECONDS.contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos);
    let at = is_valid.then(|| Timestamp::from_unix_micros(at.seconds.saturating_mul(1_000_000) + micros));
    fields.check(field, at.ok_or(RequestRule::Time))
}
