//! Verifies a fixed password against arbitrary stored hashes, such as an import may contain. No hash may
//! match it.

use std::{sync::LazyLock, time::Duration};

use kairos_identity::{
    clock::Clock,
    domain::{Password, PasswordHash},
    entropy::Entropy,
    env::Env,
    password::{PasswordOptions, Passwords, Verdict},
};
use tokio::runtime::{Builder, Runtime};

use super::super::input;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());
static PASSWORDS: LazyLock<Passwords> = LazyLock::new(|| {
    let options = PasswordOptions { cost: 4, threads: 1, queue_length: 1, refusal_time_max: Duration::ZERO };
    Passwords::start(options, Env { clock: Clock::system(), entropy: Entropy::seeded(1) }).unwrap()
});

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(hash) = input::<String>(bytes) else { return };
    let password = Password::parse("a password that no seed has".to_owned()).unwrap();
    let place = PASSWORDS.reserve().unwrap();
    let hash = PasswordHash::from_stored(hash);
    assert_eq!(RUNTIME.block_on(PASSWORDS.verify(place, &password, Some(hash))).unwrap(), Verdict::Wrong);
}
