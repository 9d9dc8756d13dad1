//! Parses arbitrary texts as the content of the key file, and opens arbitrary bytes as a sealed token of the
//! outbox.
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
        "bytes that were not sealed were opened"
    );
});
