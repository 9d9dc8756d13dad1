//! The reasons why a stored value is not used, and the parsing of its parameters.

/// The reason why no password can be checked against a stored value. It contains no part of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::password) enum HashParseError {
    /// The value is empty or begins with `!`, Django's mark for a user without a password. The row is valid.
    #[error("no password is set")]
    Unusable,
    /// The scheme is not supported, or the value is a plaintext password.
    #[error("unknown scheme")]
    UnknownScheme,
    /// The scheme is supported, but the value does not have the form that Django writes.
    #[error("malformed hash")]
    Malformed,
    /// A parameter exceeds its cap: a check would take seconds or hundreds of megabytes.
    #[error("hash parameters exceed the supported limits")]
    TooExpensive,
}

/// Parses a parameter: decimal digits without sign or leading zero, from 1 to `max`.
pub(super) fn parameter(text: &str, max: u32) -> Result<u32, HashParseError> {
    if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HashParseError::Malformed);
    }
    match text.parse() {
        Ok(value) if value <= max => Ok(value),
        // Too large for `max` or for the type.
        Ok(_) | Err(_) => Err(HashParseError::TooExpensive),
    }
}
