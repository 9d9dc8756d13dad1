//! `[session]`

use super::{
    number::{Count, Span},
    section::section,
    value::Text,
};

section! {
    /// Sessions, and the access tokens that are issued for them. A service verifies an access token with the
    /// public keys, without a call.
    SessionSettings in "session" {
        /// The `iss` claim of access tokens: their issuer. A service that verifies tokens must compare it.
        issuer: Text<255> = "https://identity.kairos.localhost",
        /// The `aud` claim of access tokens: the services that they are issued for.
        audience: Text<255> = "kairos",
        /// Lifetime of an access token. A service that verifies tokens offline notices a revoked session only
        /// after this long.
        access_token_lifetime: Span<1_000, 86_400_000> = "10m",
        /// How long a session lasts without a refresh.
        idle: Span<1_000, 31_536_000_000> = "7d",
        /// How long a session lasts in total, however often it is refreshed.
        lifetime: Span<1_000, 31_536_000_000> = "30d",
        /// Maximum number of sessions of one user. A new session beyond it revokes those that were refreshed
        /// longest ago.
        per_user_max: Count<1, 10_000> = "100",
        /// Age at which a key that signs access tokens is replaced: the next key is then created.
        key_rotation: Span<1_000, 31_536_000_000> = "30d",
        /// How long `GetJwks` publishes a new key before the key signs. Choose it longer than any service
        /// caches the public keys.
        key_lead: Span<0, 604_800_000> = "1h",
    }
}
