//! Verifies arbitrary texts, and arbitrary headers and claims signed with the right key, as access tokens. An
//! unsigned text must be rejected, and an accepted token must not be expired.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kairos_identity::{
    access_token::{AccessTokenOptions, AccessTokens, SigningKey},
    domain::{SigningSeed, Timestamp},
};
use ring::signature::Ed25519KeyPair;

use super::super::input;

const SEED: [u8; 32] = [7; 32];
const NOW: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);

fn tokens() -> AccessTokens {
    let (issuer, audience) = ("https://id.example".to_owned(), "kairos".to_owned());
    let lifetime = std::time::Duration::from_mins(10);
    let tokens = AccessTokens::new(AccessTokenOptions { issuer, audience, lifetime });
    tokens.replace_keys(&[SigningKey::new(SigningSeed::from_bytes(SEED), NOW, None)]);
    tokens
}

/// Signs the header and the claims with the right key.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(input) = input::<(&str, &str)>(bytes) else { return };
    let tokens = tokens();
    let (first, second) = input;
    assert!(tokens.verify(first, NOW).is_err(), "a text without a signature was accepted");
    let kid = SigningKey::new(SigningSeed::from_bytes(SEED), NOW, None).public().id.as_str().to_owned();
    let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{kid}"}}"#);
    for token in [signed(&header, second), signed(first, second)] {
        if let Ok(claims) = tokens.verify(&token, NOW) {
            assert!(NOW < claims.expires_at);
        }
    }
}
