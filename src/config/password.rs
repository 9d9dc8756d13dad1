//! `[password]`

use super::{
    number::{Count, Span},
    section::section,
    setting::Flag,
};

section! {
    /// Password hashing, and the rules for new passwords.
    PasswordSettings in "password" {
        /// The bcrypt cost of new hashes. Each step doubles the time of a login, and of each guess of an
        /// attacker; 12 takes about 235 ms on one core. A hash of a lower cost or another scheme is rewritten
        /// at the user's next login. A cost below 10 needs `password.insecure-low-cost`.
        cost: Count<4, 15> = "12",
        /// Allows a cost below 10. For tests only: such hashes do not protect real passwords.
        #[flag(Flag::switch_of_serve("insecure-low-cost", "Allow a password hash cost below 10, for tests"))]
        insecure_low_cost: bool = "false",
        /// Number of threads that hash; 0 means one for each core. They run at a low priority (a nice value
        /// of 10).
        threads: Count<0, 256> = "0",
        /// Maximum number of passwords that wait for a thread; beyond it calls fail with `OVERLOADED`. A
        /// longer queue delays answers and makes no login faster. Logins from one client address may use half
        /// of it; beyond it they fail with `TOO_MANY_ATTEMPTS`.
        queue_length: Count<1, 10_000> = "64",
        /// Longest time to which a refused password check is extended. While hashes of other schemes or of a
        /// higher cost are stored, which an import brings, each refused check takes the time of the slowest
        /// of them, so that the time does not reveal which scheme a user has. A hash that takes longer than
        /// this can be distinguished. Users who enter the right password do not wait.
        refusal_time_max: Span<0, 5_000> = "1s",
        /// Minimum length of a new password, in characters.
        length_min: Count<8, 64> = "8",
        /// Minimum zxcvbn score of a new password: 0 accepts any, 3 requires an estimate of 10^8 guesses or
        /// more, 4 of 10^10 or more.
        score_min: Count<0, 4> = "3",
        /// Maximum number of new passwords that `ChangePassword` judges for one user, and `ResetPassword` for
        /// one link, within `client.window`, whether they are accepted or not; beyond it they fail with
        /// `TOO_MANY_ATTEMPTS`. Each takes up to 36 ms of a hashing thread, which logins need. A user who is
        /// asked for a better password needs a few.
        judged_max: Count<1, 1_000_000> = "100",
        /// Lifetime of a mailed link to reset a password.
        reset_lifetime: Span<1_000, 86_400_000> = "20m",
    }
}
