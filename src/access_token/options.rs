//! The options of access tokens.

use std::time::Duration;

/// The largest clock difference between two instances that is tolerated: `iat` and `nbf` may be this far in
/// the future. `exp` has no tolerance.
pub const ISSUED_AHEAD_MAX: Duration = Duration::from_secs(30);

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
