//! The options of access tokens.

use std::time::Duration;

/// The values that all access tokens have in common.
#[derive(Debug, Clone)]
pub struct AccessTokenOptions {
    /// `iss`: the issuer.
    pub issuer: String,
    /// `aud`: the audience.
    pub audience: String,
    /// The lifetime of a token; a token expires earlier if its key does.
    pub lifetime: Duration,
}
