//! Users that both sides know by their number, so that the generator need not read the database.

use uuid::{Builder, Uuid};

/// The password of all of them.
pub const PASSWORD: &str = "plum-Voyage-84-kettle";

/// The `auth_token` of a user: random to look at, the same in every run.
pub fn auth_token(user: u64) -> Uuid {
    let (high, low) = (mix(user), mix(user ^ 0x5555_5555_5555_5555));
    Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
}

/// The email of a user.
pub fn email(user: u64) -> String {
    format!("user{user}@bench.example")
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A sequence of users to ask for; each worker has its own.
pub struct Draw {
    state: u64,
    users: u64,
}

impl Draw {
    /// Draws from the first `users`.
    pub const fn new(seed: u64, users: u64) -> Self {
        Self { state: mix(seed), users }
    }

    /// The next user.
    pub const fn next(&mut self) -> u64 {
        self.state = mix(self.state);
        self.state % self.users
    }
}
