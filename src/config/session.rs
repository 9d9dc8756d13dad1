//! `[session]`

use super::{
    setting::section,
    value::{Count, Span, Text},
};

section! {
    /// What lasts after a login: access tokens, which prove it for some minutes without a call, and the sessions that they come from.
    SessionSettings in "session" {
        /// Who gives the access tokens out: their `iss`, which whoever verifies them compares.
        issuer: Text<255> = "https://identity.kairos.localhost",
        /// For whom they are: their `aud`.
        audience: Text<255> = "kairos",
        /// How long an access token is good for. Who verifies it without a call learns of the end of its session so late.
        access_token_lifetime: Span<1_000, 86_400_000> = "10m",
        /// How long a session lasts without a refresh.
        idle: Span<1_000, 31_536_000_000> = "7d",
        /// How long a session lasts, however often it is refreshed.
        lifetime: Span<1_000, 31_536_000_000> = "30d",
        /// How many sessions one user may have; those that were refreshed longest ago end for a new one.
        per_user_max: Count<1, 10_000> = "100",
        /// How old a key that signs access tokens becomes before the next one is made.
        key_rotation: Span<1_000, 31_536_000_000> = "30d",
        /// How long the next key is told of before it signs: longer than anybody keeps what `GetJwks` told.
        key_lead: Span<0, 604_800_000> = "1h",
    }
}
