//! Where to report a flaw of this deployment (`security.txt`, RFC 9116).

use std::time::Duration;

use super::reply::Reply;
use crate::domain::Timestamp;

/// The media type (RFC 9116, section 3).
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// How long the contact is valid. The RFC recommends less than a year; each request renews it.
const LIFETIME: Duration = Duration::from_hours(90 * 24);

/// How long clients may cache the file.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Returns the file with this contact, a URL.
pub(super) fn reply(contact: &str, now: Timestamp) -> Reply {
    let text = format!("Contact: {contact}\r\nExpires: {}\r\n", now.plus(LIFETIME));
    Reply::cacheable(CONTENT_TYPE, MAX_AGE, text)
}
