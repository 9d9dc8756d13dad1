//! `[client]`

use super::{
    setting::section,
    value::{Count, Span},
};

section! {
    /// What one end user's address may do. It is known only where a caller tells it (`kairos-client-ip`, docs/CALLERS.md): behind a
    /// BFF that does not, all users share an address, and these limits do not apply.
    ClientSettings in "client" {
        /// How many wrong passwords one address may give within `client.window`, for all accounts together.
        failures_max: Count<1, 1_000_000> = "100",
        /// How many people may register from one address within `client.window`.
        registrations_max: Count<1, 1_000_000> = "20",
        /// How often links may be asked for again from one address within `client.window`.
        resends_max: Count<1, 1_000_000> = "20",
        /// What these count within. An address may be an office or a school.
        window: Span<1_000, 86_400_000> = "1h",
        /// How long an address from which somebody has logged in is known as theirs. Guesses from elsewhere do not make them wait
        /// there.
        known_lifetime: Span<1_000, 31_536_000_000> = "90d",
    }
}
