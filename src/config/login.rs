//! `[login]`

use super::{
    setting::section,
    value::{Count, Span},
};

section! {
    /// How often passwords may be guessed. Failures are counted in the database, over all instances and restarts. Callers who
    /// have to wait get `TOO_MANY_ATTEMPTS`, for an email that nobody has as for any other.
    LoginSettings in "login" {
        /// How many wrong passwords in a row an account takes before callers have to wait. The right one takes the count back to
        /// nothing, and so does a day without an attempt.
        failures_max: Count<1, 100> = "10",
        /// The first wait; each further wrong password doubles it.
        wait_first: Span<1_000, 86_400_000> = "15m",
        /// The longest wait that doubling leads to.
        wait_max: Span<1_000, 86_400_000> = "1h",
        /// After how many wrong passwords in a row an account takes none for `login.pause`; then it counts from the beginning
        /// (NIST SP 800-63B, 3.2.2: at most 100). An operator ends any wait with `kairos-identity user unlock`.
        failures_in_a_row_max: Count<1, 100> = "100",
        /// How long that is.
        pause: Span<1_000, 604_800_000> = "24h",
        /// How many wrong passwords all accounts together take within `login.window`, before every login waits for its end: for
        /// somebody who tries one password on many accounts. Well above what your users get wrong.
        total_max: Count<1, 100_000_000> = "10000",
        /// What `login.total-max` counts within.
        window: Span<1_000, 86_400_000> = "15m",
    }
}
