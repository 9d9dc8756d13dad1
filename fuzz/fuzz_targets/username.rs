//! A username from a caller: what is taken is within its bounds, holds nothing that steers, and is itself when it is read again.
#![no_main]

use kairos_identity::domain::{USERNAME_CHARACTERS_MAX, USERNAME_KEY_CHARACTERS_MAX, Username};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(username) = Username::parse(text) else { return };
    assert!((1..=USERNAME_CHARACTERS_MAX).contains(&username.as_str().chars().count()));
    assert!(username.key().chars().count() <= USERNAME_KEY_CHARACTERS_MAX);
    assert!(!username.as_str().chars().any(|c| c.is_control() || c == '@'));
    let again = Username::parse(username.as_str()).expect("what is taken is taken again");
    assert_eq!((again.as_str(), again.key()), (username.as_str(), username.key()));
});
