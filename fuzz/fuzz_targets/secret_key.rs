//! The key file, and what lies in the outbox under the key.
#![no_main]

use kairos_identity::{
    domain::Sealed,
    sealing::{Purpose, SealingKey},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, Vec<u8>)| {
    let (text, sealed) = input;
    let _ = SealingKey::from_base64(&text);
    let key = SealingKey::from_base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
    assert!(
        key.open(Purpose::MailToken, &Sealed::from_bytes(sealed)).is_err(),
        "nobody forges what is sealed"
    );
});
