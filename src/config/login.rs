//! `[login]`

use super::{
    number::{Count, Span},
    section::section,
};

section! {
    /// Limits on password guessing. Failures are counted in the database, across all instances and restarts.
    /// Only a password that was compared and is wrong is a failure. While an account is throttled, callers
    /// get `TOO_MANY_ATTEMPTS`. An email without an account is throttled in the same way.
    LoginSettings in "login" {
        /// Number of consecutive wrong passwords after which an account is throttled. The right password
        /// resets the count, and so does a day without a wrong password after the end of the last wait.
        failures_max: Count<1, 100> = "10",
        /// The first wait. Each further wrong password doubles it.
        wait_first: Span<1_000, 86_400_000> = "15m",
        /// The longest wait that doubling leads to.
        wait_max: Span<1_000, 86_400_000> = "1h",
        /// Number of consecutive wrong passwords after which an account accepts no login for `login.pause`;
        /// after the pause the count starts again at zero (NIST SP 800-63B, section 3.2.2: at most 100). An
        /// operator ends any wait with `kairos-identity user unlock`.
        failures_in_a_row_max: Count<1, 100> = "100",
        /// How long an account accepts no login after `login.failures-in-a-row-max` wrong passwords.
        pause: Span<1_000, 604_800_000> = "24h",
        /// Maximum number of wrong passwords for all accounts together within `login.window`, except those
        /// from known addresses (`client.known-lifetime`); beyond it every login that is not from a known
        /// address of its user is refused until the window ends. This stops an attacker who tries one
        /// password on many accounts. Choose a value well above the number of mistakes that your users make.
        total_max: Count<1, 100_000_000> = "10000",
        /// The time window of `login.total-max`.
        window: Span<1_000, 86_400_000> = "15m",
    }
}
