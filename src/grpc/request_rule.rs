//! The rules for requests that no type of the domain has.

use crate::{callers::NAME_BYTES_MAX, domain::EMAIL_OCTETS_MAX};

/// The maximum number of tokens in one `ResolveTokens` request. They take 38 KB, and a message may have 64
/// KiB (`server.message-bytes-max`).
pub(super) const AUTH_TOKENS_MAX: usize = 1_000;

/// The maximum number of entries on one page of a list.
pub(super) const PAGE_SIZE_MAX: i32 = 1_000;

/// The longest text of a filter: no email is longer, and usernames are shorter.
pub(super) const FILTER_TEXT_CHARACTERS_MAX: usize = EMAIL_OCTETS_MAX;

/// The most digits that the specification of gRPC allows in a `grpc-timeout`.
pub(super) const GRPC_TIMEOUT_DIGITS_MAX: usize = 8;

/// The most digits that the specification of Connect allows in a `connect-timeout-ms`.
pub(super) const CONNECT_TIMEOUT_DIGITS_MAX: usize = 10;

/// A rule that a field or a header breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestRule {
    #[error("must not be empty")]
    NotEmpty,
    #[error("must be set")]
    Set,
    /// One of the fields that the text lists must be set.
    #[error("must be given: set one of the fields {0}")]
    KeySet(&'static str),
    #[error("is already the email of this account")]
    NewEmail,
    #[error(
        "was used within the last 24 hours for another email or username, or the user of that registration has another \
         one by now"
    )]
    RequestIdNew,
    #[error("may contain only username")]
    MaskOfUsername,
    #[error("must have 1 to {AUTH_TOKENS_MAX} tokens, not {0}")]
    TokenCount(usize),
    #[error("must be 0 to {PAGE_SIZE_MAX}")]
    PageSize,
    #[error("must be a time from the year 1 to 9999")]
    Time,
    #[error("must be at most {FILTER_TEXT_CHARACTERS_MAX} characters")]
    FilterTextLength,
    #[error("must not contain control characters")]
    FilterTextCharacters,
    #[error("is not a kind of event; docs/AUDIT.md lists the kinds")]
    AuditKind,
    #[error("must have at most {NAME_BYTES_MAX} bytes and no control characters")]
    CallerName,
    #[error("must occur at most once")]
    ClientIpOnce,
    #[error("must be 1 to {GRPC_TIMEOUT_DIGITS_MAX} digits and one of the units H, M, S, m, u, n")]
    GrpcTimeout,
    #[error("must be 1 to {CONNECT_TIMEOUT_DIGITS_MAX} digits")]
    ConnectTimeout,
    #[error("must be 1")]
    ConnectVersion,
    #[error("must be one complete protobuf message of the type of the request")]
    Message,
}

/// A rule that JSON breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonRule {
    #[error("must not have a name twice in one object (line {line}, column {column})")]
    DistinctNames { line: usize, column: usize },
    #[error("must not be empty: a method without fields takes {{}}")]
    NotEmpty,
    #[error("must be complete JSON (line {line}, column {column})")]
    Complete { line: usize, column: usize },
    #[error("must be JSON in UTF-8, nested at most 127 levels deep (line {line}, column {column})")]
    Syntax { line: usize, column: usize },
    #[error("must be a JSON object")]
    Object,
    #[error("must only have the fields of {message}: {fields}")]
    KnownField { message: String, fields: String },
    #[error("must not occur in both of its forms")]
    OneForm,
    #[error("must have at most one of the fields of a oneof")]
    OneOf,
    /// The value must have the type that the text describes.
    #[error("must be {0}")]
    Value(String),
}
