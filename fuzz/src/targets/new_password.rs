//! Judges arbitrary new passwords with an arbitrary username and email. libFuzzer's `-timeout` limits the
//! time of a judgement.

use kairos_identity::{
    domain::{Email, NEW_PASSWORD_BYTES_MAX, Username},
    password::Policy,
};

use super::super::input;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(texts) = input::<(String, String, String)>(bytes) else { return };
    let (password, username, email) = texts;
    let policy = Policy { length_min_characters: 8, score_min: 3 };
    let (username, email) = (Username::parse(&username).ok(), Email::parse(&email).ok());
    if let Ok(admitted) = policy.admit(password.clone(), username.as_ref(), email.as_ref()) {
        assert_eq!(admitted.expose(), password);
        assert!(password.len() <= NEW_PASSWORD_BYTES_MAX && password.chars().count() >= 8);
    }
}
