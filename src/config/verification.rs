//! `[verification]`

use super::{setting::section, value::Span};

section! {
    /// Proving an address.
    VerificationSettings in "verification" {
        /// How long a mailed link is good for.
        token_lifetime: Span<1_000, 604_800_000> = "24h",
    }
}
