//! Derives the users from their numbers, so that the generator need not read the database.

use uuid::{Builder, Uuid};

/// The password of all users.
pub const PASSWORD: &str = "plum-Voyage-84-kettle";

/// Returns the `auth_token` of a user: pseudorandom, and the same in every run.
pub fn auth_token(user: u64) -> Uuid {
    let (high, low) = (mix(user), mix(user ^ 0x5555_5555_5555_5555));
    Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
}

/// Returns the email of a user.
pub fn email(user: u64) -> String {
    format!("user{user}@bench.example")
}

/// One step of `SplitMix64` (Steele, Lea, Flood 2014).
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A pseudorandom sequence of users; each worker has its own.
pub struct RandomUsers {
    state: u64,
    users: u64,
}

impl RandomUsers {
    /// Creates a sequence of the first `users` users.
    pub const fn new(seed: u64, users: u64) -> Self {
        Self { state: mix(seed), users }
    }

    /// Returns the next user.
    pub const fn next(&mut self) -> u64 {
        self.state = mix(self.state);
        self.state % self.users
    }
}
