use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    domain::{AuthToken, SessionId, SigningSeed},
    telemetry::with_warnings,
};

const NOW: Timestamp = Timestamp::from_unix_micros(1_800_000_000_000_000);
const LIFETIME: Duration = Duration::from_mins(10);

/// The number of the key with which the service signs and verifies.
const SERVICE_KEY: u8 = 1;
/// The number of a key that an attacker has.
const ATTACKER_KEY: u8 = 2;

fn key(number: u8, signs_from: Timestamp, verifies_until: Option<Timestamp>) -> SigningKey {
    SigningKey::new(SigningSeed::from_bytes([number; 32]), signs_from, verifies_until)
}

fn tokens(keys: &[SigningKey]) -> AccessTokens {
    let (issuer, audience) = ("https://id.example".to_owned(), "kairos".to_owned());
    let tokens = AccessTokens::new(AccessTokenOptions { issuer, audience, lifetime: LIFETIME });
    tokens.replace_keys(keys);
    tokens
}

fn claims(now: Timestamp) -> AccessClaims {
    let session = SessionId::from_random([2; 16]);
    AccessClaims::new(Uuid::from_u128(3), AuthToken::from_random([1; 16]), session, "bff".into(), now)
}

/// Returns the header and the claims of a valid token, for tests to alter.
fn parts() -> (Value, Value) {
    let token = tokens(&[key(SERVICE_KEY, NOW, None)]).sign(claims(NOW)).unwrap().0;
    let token = token.expose();
    let mut parts = token.split('.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Returns a token with this header and these claims, and the signature that `sign` returns for its message.
fn signed_by(header: &Value, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())))
}

fn signed_with(number: u8, header: &Value, claims: &str) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
    signed_by(header, claims, |message| pair.sign(message).as_ref().to_vec())
}

/// Signs any header and claims with the key of the service.
fn signed(header: &Value, claims: &str) -> String {
    signed_with(SERVICE_KEY, header, claims)
}

/// Signs any header and claims with a key that the service does not have.
fn signed_by_attacker(header: &Value, claims: &str) -> String {
    signed_with(ATTACKER_KEY, header, claims)
}

fn is_valid(token: &str, now: Timestamp) -> bool {
    tokens(&[key(SERVICE_KEY, NOW, None)]).verify(token, now).is_ok()
}

#[test]
fn a_token_yields_its_claims_until_it_expires() {
    let tokens = tokens(&[key(SERVICE_KEY, NOW, None)]);
    let (token, signed) = tokens.sign(claims(NOW)).unwrap();
    let token = token.expose();
    assert_eq!(signed.expires_at, NOW.plus(LIFETIME));

    assert_eq!(tokens.verify(token, NOW), Ok(signed.clone()));
    assert!(tokens.verify(token, signed.expires_at.minus(Duration::from_micros(1))).is_ok());
    assert!(tokens.verify(token, signed.expires_at).is_err());
    // The clock of the verifier is behind by exactly `ISSUED_AHEAD_MAX`, then by one second more.
    assert!(tokens.verify(token, NOW.minus(ISSUED_AHEAD_MAX)).is_ok());
    assert!(tokens.verify(token, NOW.minus(ISSUED_AHEAD_MAX + Duration::from_secs(1))).is_err());
}

#[test]
fn header_and_claims_follow_rfc_9068() {
    let (header, claims) = parts();
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(header["alg"], "EdDSA");
    assert_eq!(header["kid"], key(SERVICE_KEY, NOW, None).public().id.as_str());
    let second = NOW.unix_micros() / 1_000_000;
    assert_eq!(
        claims,
        json!({
            "iss": "https://id.example", "aud": "kairos", "sub": AuthToken::from_random([1; 16]).to_string(),
            "exp": second + 600, "nbf": second, "iat": second, "jti": Uuid::from_u128(3).to_string(),
            "sid": SessionId::from_random([2; 16]).to_string(), "client_id": "bff",
        })
    );
}

#[test]
fn each_claim_is_required_and_type_checked() {
    let (header, good) = parts();
    assert!(is_valid(&signed(&header, &good.to_string()), NOW));
    for name in good.as_object().unwrap().keys() {
        let mut altered = good.clone();
        altered.as_object_mut().unwrap().remove(name);
        assert!(!is_valid(&signed(&header, &altered.to_string()), NOW), "without {name}");
        let text = &good[name];
        let wrong = [
            json!(null),
            json!(true),
            json!([]),
            json!([text]),
            json!({}),
            json!(-1),
            json!(1.5),
            json!(1e300),
        ];
        let other = if text.is_u64() { json!(text.to_string()) } else { json!(1) };
        for value in wrong.into_iter().chain([other]) {
            altered[name] = value;
            assert!(!is_valid(&signed(&header, &altered.to_string()), NOW), "{name}: {}", altered[name]);
        }
    }
}

#[test]
fn a_duplicate_claim_is_rejected() {
    let (header, good) = parts();
    let twice = good.to_string().replacen('{', "{\"sub\":\"00000000-0000-4000-8000-000000000000\",", 1);
    assert!(!is_valid(&signed(&header, &twice), NOW));
}

#[test]
fn a_token_of_another_issuer_or_audience_is_rejected() {
    let (header, good) = parts();
    for (name, value) in [("iss", "https://id.example/"), ("iss", ""), ("aud", "kairos2"), ("aud", "KAIROS")]
    {
        let mut altered = good.clone();
        altered[name] = json!(value);
        assert!(!is_valid(&signed(&header, &altered.to_string()), NOW), "{name}: {value}");
    }
}

#[test]
fn token_times_are_checked_against_the_clock() {
    let (header, good) = parts();
    let second = NOW.unix_micros() / 1_000_000;
    // `ISSUED_AHEAD_MAX` is 30 s.
    for (name, value, valid) in [
        ("nbf", second + 30, true),
        ("nbf", second + 31, false),
        ("iat", second + 30, true),
        ("iat", second + 31, false),
        ("exp", second + 1, true),
        ("exp", second, false),
        ("exp", 0, false),
        ("exp", i64::MAX, true),
        ("nbf", i64::MAX, false),
    ] {
        let mut altered = good.clone();
        altered[name] = json!(value);
        assert_eq!(is_valid(&signed(&header, &altered.to_string()), NOW), valid, "{name}: {value}");
    }
}

#[test]
fn a_token_with_an_altered_header_is_refused() {
    let (good, claims) = parts();
    for (name, value) in [
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("alg", json!("RS256")),
        ("alg", json!("Ed25519")),
        ("alg", json!("")),
        ("alg", json!(null)),
        ("alg", json!(["EdDSA"])),
        ("typ", json!("JWT")),
        ("typ", json!("AT+JWT")),
        ("typ", json!("rt+jwt")),
        ("typ", json!(null)),
        ("kid", json!(key(ATTACKER_KEY, NOW, None).public().id.as_str())),
        ("kid", json!("../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("")),
        ("kid", json!(null)),
        ("kid", json!(1)),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
    ] {
        let mut altered = good.clone();
        altered[name] = value;
        assert!(!is_valid(&signed(&altered, &claims.to_string()), NOW), "{name}: {}", altered[name]);
    }
}

#[test]
fn a_key_in_the_header_is_ignored() {
    let (good, claims) = parts();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": key(ATTACKER_KEY, NOW, None).public().x});
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks.json")),
        ("jwk", jwk),
        ("x5u", json!("https://evil.example")),
    ] {
        let mut altered = good.clone();
        altered[name] = value;
        assert!(!is_valid(&signed_by_attacker(&altered, &claims.to_string()), NOW), "{name}");
    }
}

#[test]
fn an_hmac_with_the_public_key_is_not_a_valid_signature() {
    use hmac::{Hmac, KeyInit, Mac};
    let (mut header, claims) = parts();
    let x = key(SERVICE_KEY, NOW, None).public().x;
    for secret in [x.as_bytes(), &URL_SAFE_NO_PAD.decode(&x).unwrap()] {
        for algorithm in ["HS256", "EdDSA"] {
            header["alg"] = json!(algorithm);
            let forged = signed_by(&header, &claims.to_string(), |message| {
                let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            });
            assert!(!is_valid(&forged, NOW), "{algorithm}");
        }
    }
}

#[test]
fn a_flipped_bit_or_a_truncation_invalidates_a_token() {
    let tokens = tokens(&[key(SERVICE_KEY, NOW, None)]);
    let (token, _) = tokens.sign(claims(NOW)).unwrap();
    let token = token.expose();
    for index in 0..token.len() {
        // All but the highest bit of a byte, which would make the text invalid UTF-8.
        for bit in 0..7 {
            let mut bytes = token.as_bytes().to_vec();
            bytes[index] ^= 1 << bit;
            let flipped = String::from_utf8(bytes).unwrap();
            assert!(tokens.verify(&flipped, NOW).is_err(), "{flipped}");
        }
        assert!(tokens.verify(&token[..index], NOW).is_err());
        assert!(tokens.verify(&token[index + 1..], NOW).is_err());
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    for odd in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{message}."),
        format!("{token}."),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{message}.{signature}.{signature}"),
        format!(".{message}.{signature}"),
        "a".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        assert!(tokens.verify(&odd, NOW).is_err(), "{odd}");
    }
}

#[test]
fn auth_tokens_and_other_credentials_are_not_access_tokens() {
    for other in ["0b9f6c1e-5d0a-4b39-9c6f-2f6f3a1f7a10", &format!("krt_{}", "A".repeat(64)), &"A".repeat(43)]
    {
        assert!(!is_valid(other, NOW), "{other}");
    }
}

#[test]
fn a_key_signs_until_its_successor_does_and_verifies_until_its_last_token_expires() {
    let change = NOW.plus(Duration::from_hours(1));
    let old = key(1, NOW, Some(change.plus(LIFETIME)));
    let new = key(2, change, None);
    let tokens = tokens(&[new.clone(), old.clone()]);
    let kid = |at| {
        let (token, _) = tokens.sign(claims(at)).unwrap();
        decode_header(token.expose()).unwrap().kid.unwrap()
    };
    assert_eq!(kid(change.minus(Duration::from_micros(1))), old.public().id.as_str());
    assert_eq!(kid(change), new.public().id.as_str());
    assert_eq!(tokens.public_keys(NOW).len(), 2, "a key is published before it signs");

    let (last, claims) = tokens.sign(claims(change.minus(Duration::from_secs(1)))).unwrap();
    assert!(tokens.verify(last.expose(), claims.expires_at.minus(Duration::from_secs(1))).is_ok());
    let end = change.plus(LIFETIME);
    assert_eq!(tokens.public_keys(end), [new.public()]);
    assert!(tokens.sign(AccessClaims { issued_at: end, ..claims }).is_ok());
}

#[test]
fn no_token_outlives_its_signing_key() {
    let until = NOW.plus(Duration::from_mins(3));
    let tokens = tokens(&[key(1, NOW, Some(until))]);
    let (token, signed) = tokens.sign(claims(NOW)).unwrap();
    assert_eq!(signed.expires_at, until);
    assert!(tokens.verify(token.expose(), until).is_err());
    assert_eq!(tokens.sign(claims(until)), Err(NoSigningKey));
    assert!(tokens.verify(token.expose(), until.plus(LIFETIME)).is_err());
}

#[test]
fn the_earliest_key_signs_even_if_the_clock_is_set_back() {
    let a_year_ago = NOW.minus(Duration::from_hours(24 * 365));
    let (earliest, later) = (key(1, NOW, None), key(2, NOW.plus(LIFETIME), None));
    let tokens = tokens(&[later, earliest.clone()]);
    let (token, _) = tokens.sign(claims(a_year_ago)).unwrap();
    assert_eq!(decode_header(token.expose()).unwrap().kid.unwrap(), earliest.public().id.as_str());
    assert!(tokens.verify(token.expose(), a_year_ago).is_ok());
}

#[test]
fn a_token_of_a_removed_key_is_rejected_immediately() {
    let tokens = tokens(&[key(1, NOW, None)]);
    let (token, _) = tokens.sign(claims(NOW)).unwrap();
    tokens.replace_keys(&[key(2, NOW, None)]);
    assert!(tokens.verify(token.expose(), NOW).is_err());
}

/// Returns what an instance with these options logs while it refuses `token` at these times.
async fn warnings_of(issuer: &str, audience: &str, token: &str, at: &[Timestamp]) -> Vec<String> {
    let instance = AccessTokens::new(AccessTokenOptions {
        issuer: issuer.to_owned(),
        audience: audience.to_owned(),
        lifetime: LIFETIME,
    });
    instance.replace_keys(&[key(SERVICE_KEY, NOW, None)]);
    let refusals = async { assert!(at.iter().all(|now| instance.verify(token, *now).is_err())) };
    with_warnings(refusals).await.1
}

#[tokio::test]
async fn instances_that_disagree_are_named_once_a_minute() {
    let (token, _) = tokens(&[key(SERVICE_KEY, NOW, None)]).sign(claims(NOW)).unwrap();
    let (token, second) = (token.expose(), Duration::from_secs(1));
    let minutes = [NOW, NOW.plus(second), NOW.plus(60 * second)];
    for (issuer, audience) in [("https://other.example", "kairos"), ("https://id.example", "other")] {
        let warnings = warnings_of(issuer, audience, token, &minutes).await;
        let [first, _] = warnings.as_slice() else { panic!("{warnings:?}") };
        for part in ["https://id.example", "kairos", issuer, audience, "Give all instances the same"] {
            assert!(first.contains(part), "{first}");
        }
    }
    // The clock of this instance is 5 min behind that of the one that issued the token.
    let behind = NOW.minus(300 * second);
    let warnings = warnings_of("https://id.example", "kairos", token, &[behind, behind.plus(second)]).await;
    let [first] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(first.contains("issued 300 s after the time of this machine's clock"), "{first}");
}

#[tokio::test]
async fn a_token_that_no_instance_accepts_is_not_logged() {
    let (header, valid) = parts();
    let forged = signed_by_attacker(&header, &valid.to_string());
    let (token, signed) = tokens(&[key(SERVICE_KEY, NOW, None)]).sign(claims(NOW)).unwrap();
    for (token, now) in [(forged.as_str(), NOW), (token.expose(), signed.expires_at), ("x.y.z", NOW)] {
        let warnings = warnings_of("https://other.example", "kairos", token, &[now]).await;
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
