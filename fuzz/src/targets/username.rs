//! Parses arbitrary texts as a username. An accepted username must be within its bounds and contain no
//! control characters, and parsing it again must return the same username.

use kairos_identity::domain::{USERNAME_CHARACTERS_MAX, USERNAME_KEY_CHARACTERS_MAX, Username};

use super::super::input;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(text) = input::<&str>(bytes) else { return };
    let Ok(username) = Username::parse(text) else { return };
    assert!((1..=USERNAME_CHARACTERS_MAX).contains(&username.as_str().chars().count()));
    assert!(username.key().chars().count() <= USERNAME_KEY_CHARACTERS_MAX);
    assert!(!username.as_str().chars().any(|c| c.is_control() || c == '@'));
    let again = Username::parse(username.as_str()).expect("an accepted username is valid");
    assert_eq!((again.as_str(), again.key()), (username.as_str(), username.key()));
}
