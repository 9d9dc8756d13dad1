//! `[password]`

use super::{
    setting::section,
    value::{Count, Span},
};

section! {
    /// Hashing, and what a new password must be.
    PasswordSettings in "password" {
        /// bcrypt's work factor of new hashes: each step doubles the time of a login, for an attacker too; 12 is some 235 ms
        /// of one core. Older hashes are rewritten at the next login. Below 10 needs `password.insecure-low-cost`.
        cost: Count<4, 15> = "12",
        /// Allows a cost below 10: for tests, never for people.
        insecure_low_cost: bool = "false",
        /// How many threads hash; 0 takes one for each core. They run at the lowest priority.
        threads: Count<0, 256> = "0",
        /// How many passwords may wait for a thread before calls are `OVERLOADED`. A longer queue makes answers later, not
        /// logins faster.
        queue_length: Count<1, 10_000> = "64",
        /// How many characters a new password has at least.
        length_min: Count<8, 64> = "8",
        /// How hard to guess a new password must be, as zxcvbn judges it: 0 takes any, 3 asks for 10^8 guesses, 4 for 10^10.
        score_min: Count<0, 4> = "3",
        /// How long a mailed link to choose a new password with is good for.
        reset_lifetime: Span<1_000, 86_400_000> = "20m",
    }
}
