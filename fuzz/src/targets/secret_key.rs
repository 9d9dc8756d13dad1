//! Parses arbitrary texts as the content of the key file, and opens arbitrary bytes as a sealed token of the
//! outbox.

use kairos_identity::{
    domain::Sealed,
    sealing::{Purpose, SealingKeys},
};

use super::super::input;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(input) = input::<(String, Vec<u8>)>(bytes) else { return };
    let (text, sealed) = input;
    let _ = SealingKeys::parse(&text);
    let keys = SealingKeys::parse("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
    let purpose = Purpose::MailToken { message_id: "1@a.example", recipient: "ada@example.com" };
    assert!(
        keys.open(purpose, &Sealed::from_bytes(sealed)).is_err(),
        "bytes that were not sealed were opened"
    );
}
