use std::{collections::BTreeMap, fmt};

use proptest::prelude::*;

use super::{HashParseError::*, *};
use crate::entropy::Entropy;

/// JSON lines with `hasher`, `password` and `encoded`, written by Django: see
/// tests/fixtures/django/README.md.
const DJANGO_HASHES: &str = include_str!("../../../tests/fixtures/django/hashes.jsonl");

/// One password in five formats, with Django's default costs and a fixed salt, computed by Django 5.2.19.
const GOLDEN_PASSWORD: &str = "pässwörd 1";
const GOLDEN: [&str; 5] = [
    "bcrypt_sha256$$2b$12$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu",
    "bcrypt$$2b$12$R9h/cIPz0gi.URNNX3kh2OfeLXUWvYCZvDt0ytkZlfUce4q2hxDeK",
    "pbkdf2_sha256$1000000$Zm9vYmFyc2FsdDEyMzQ1Nn$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=",
    "argon2$argon2id$v=19$m=102400,t=2,p=8$Wm05dlltRnljMkZzZERFeU16UTFObg$8302zhaD0V+p9PvmTsZrlCUZ+h07QlN+n2CYRBBhu/Y",
    "scrypt$16384$Zm9vYmFyc2FsdDEyMzQ1Nn$8$5$o1yP34A6dpzjCLfvmiIP2XVjnyU5wbCfIBnpeER5HPnAA6xZPiABlURGndQ3AcLESh21Z18WwZg4ICCOqq/qUg==",
];

fn read(text: &str) -> StoredHash {
    StoredHash::parse(text).unwrap_or_else(|reason| panic!("{text:?}: {reason}"))
}

fn parse_error(text: &str) -> Option<HashParseError> {
    StoredHash::parse(text).err()
}

#[test]
fn each_django_hash_matches_its_password_only() {
    let mut rows_by_hasher = BTreeMap::<String, usize>::new();
    for line in DJANGO_HASHES.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| row[name].as_str().unwrap().to_owned();
        let (password, encoded) = (field("password"), field("encoded"));
        let hash = read(&encoded);

        assert!(hash.matches(&password), "{encoded} of {password:?}");
        // The wrong password is the right one without its last characters: a truncated password must not
        // match. One wrong password per hash, since some hashes are slow.
        assert!(!hash.matches(password.trim_end_matches(['d', 'x', 'é', ' ', '🔐', 'e'])), "{encoded}");
        *rows_by_hasher.entry(field("hasher")).or_default() += 1;
    }
    let hashers: Vec<_> = rows_by_hasher.keys().map(String::as_str).collect();
    assert_eq!(
        hashers,
        ["argon2", "bcrypt", "bcrypt_sha256", "md5", "pbkdf2_sha1", "pbkdf2_sha256", "scrypt"]
    );
    assert!(rows_by_hasher.values().all(|rows| *rows >= 8), "{rows_by_hasher:?}");
}

#[test]
fn golden_hashes_are_verified() {
    for encoded in GOLDEN {
        assert!(read(encoded).matches(GOLDEN_PASSWORD), "{encoded}");
    }
}

#[test]
fn a_new_hash_has_the_format_of_django() {
    let salt =
        [0x55, 0x9a, 0x27, 0x8e, 0x95, 0x35, 0x6a, 0x20, 0x7e, 0x44, 0x7c, 0xdd, 0x1c, 0xb8, 0xa6, 0x20];
    let hash = hash("s3cret", 4, salt);
    let text = hash.expose();
    assert!(text.starts_with("bcrypt_sha256$$2b$04$") && text.len() == 74, "{text}");
    assert!(read(text).matches("s3cret"));
    assert!(!read(text).matches("s3cret "));
}

#[test]
fn plain_bcrypt_uses_72_bytes_and_bcrypt_sha256_uses_all() {
    let plain = format!("bcrypt${}", ::bcrypt::hash_with_salt("x".repeat(72), 4, [7; 16]).unwrap());
    assert!(read(&plain).matches(&"x".repeat(72)));
    assert!(read(&plain).matches(&"x".repeat(100)));
    assert!(!read(&plain).matches(&"x".repeat(71)));

    let prehashed = hash(&"x".repeat(72), 4, [7; 16]);
    assert!(!read(prehashed.expose()).matches(&"x".repeat(73)));
}

#[test]
fn the_dummy_hash_is_of_the_current_cost_and_differs_each_time() {
    let entropy = Entropy::seeded(1);
    let (one, other) = (dummy_hash(12, &entropy), dummy_hash(12, &entropy));
    assert!(one.expose().starts_with("bcrypt_sha256$$2b$12$"));
    assert_ne!(one.expose(), other.expose());
    assert!(!read(one.expose()).needs_rewrite(12));
}

#[test]
fn only_the_current_scheme_and_cost_need_no_rewrite() {
    for (encoded, is_outdated) in GOLDEN.iter().zip([false, true, true, true, true]) {
        assert_eq!(read(encoded).needs_rewrite(12), is_outdated, "{encoded}");
    }
    assert!(!read(GOLDEN[0]).needs_rewrite(10));
    assert!(read(GOLDEN[0]).needs_rewrite(13));
}

#[test]
fn each_value_that_is_no_hash_has_its_reason() {
    let digest = "nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=";
    let long = format!("pbkdf2_sha256$1000${}${digest}", "s".repeat(512));
    for (text, reason) in [
        ("", Unusable),
        ("!", Unusable),
        ("!ifskiqHtTilCjgdNzQf7r5zD8ihvvtUC1dsGYeHH", Unusable),
        ("hunter2-synthetic", UnknownScheme),
        ("$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa", UnknownScheme),
        ("md5$$e070633e079062bc5709a6d9c9fbaa69", Malformed),
        ("md5$kndsIbv5GAPVuKREZyMv59$e070633e079062bc5709a6d9c9fbaa6", Malformed),
        ("sha1$salt$da39a3ee5e6b4b0d3255bfef95601890afd80709", UnknownScheme),
        ("unsalted_md5$$e070633e079062bc5709a6d9c9fbaa69", UnknownScheme),
        ("BCRYPT$$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa", UnknownScheme),
        ("pa$$word", UnknownScheme),
        ("bcrypt$mine", Malformed),
        ("bcrypt$", Malformed),
        ("bcrypt$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa", Malformed),
        ("bcrypt$$2b$03$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa", Malformed),
        ("bcrypt$$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpyns\u{e9}", Malformed),
        ("bcrypt$$2b$04$éZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpyns", Malformed),
        ("pbkdf2_sha256$1000$salt", Malformed),
        ("pbkdf2_sha256$+100$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=", Malformed),
        ("pbkdf2_sha256$0$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=", Malformed),
        ("pbkdf2_sha256$1000$$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=", Malformed),
        ("pbkdf2_sha256$1000$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0", Malformed),
        ("pbkdf2_sha1$1000$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=", Malformed),
        ("scrypt$16384$salt$8$5$", Malformed),
        ("scrypt$16383$salt$8$5$AAAA", Malformed),
        ("scrypt$1$salt$8$5$AAAA", Malformed),
        ("argon2$argon2id$v=19$m=102400,t=2,p=8$Wm05dlltRnljMkZzZERFeU16UTFObg", Malformed),
        ("argon2$argon2x$v=19$m=8,t=1,p=1$Wm05dlltRnljMkZzZERFeU16UTFObg$8302zhaD0V+p9PvmTsZrlA", Malformed),
        ("argon2$argon2id$v=18$m=8,t=1,p=1$Wm05dlltRnljMkZzZERFeU16UTFObg$8302zhaD0V+p9PvmTsZrlA", Malformed),
        (&long, Malformed),
    ] {
        assert_eq!(parse_error(text), Some(reason), "{text:?}");
    }
}

fn bcrypt_with(cost: u32) -> String {
    format!("bcrypt_sha256$$2b${cost:02}$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa")
}

fn pbkdf2_with(iterations: impl fmt::Display) -> String {
    format!("pbkdf2_sha256${iterations}$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=")
}

fn scrypt_with([n, r, p]: [u32; 3]) -> String {
    format!("scrypt${n}$salt${r}${p}${}==", "A".repeat(86))
}

fn argon2_with([memory_kib, passes, lanes]: [u32; 3]) -> String {
    format!(
        "argon2$argon2id$v=19$m={memory_kib},t={passes},p={lanes}$Wm05dlltRnljMkZzZERFeU16UTFObg\
         $8302zhaD0V+p9PvmTsZrlA"
    )
}

#[test]
fn parameters_above_the_caps_are_rejected_while_parsing() {
    for text in [
        bcrypt_with(COST_MAX + 1),
        bcrypt_with(COST_MAX + 1).replace("bcrypt_sha256", "bcrypt"),
        bcrypt_with(31),
        bcrypt_with(99),
        pbkdf2_with(pbkdf2::ITERATIONS_MAX + 1),
        pbkdf2_with("99999999999999999999"),
        scrypt_with([2 * scrypt::N_MAX, 8, 1]),
        scrypt_with([16_384, scrypt::R_MAX + 1, 1]),
        scrypt_with([16_384, 8, scrypt::P_MAX + 1]),
        // Each parameter is allowed, their product is not.
        scrypt_with([scrypt::N_MAX, scrypt::R_MAX, scrypt::P_MAX]),
        argon2_with([argon2::MEMORY_KIB_MAX + 1, 1, 1]),
        argon2_with([u32::MAX, 1, 1]),
        argon2_with([1_024, argon2::PASSES_MAX + 1, 1]),
        argon2_with([1_024, u32::MAX, 1]),
        argon2_with([1_024, 1, argon2::LANES_MAX + 1]),
        // Each parameter is allowed, their product is not.
        argon2_with([argon2::MEMORY_KIB_MAX, argon2::PASSES_MAX, 1]),
    ] {
        assert_eq!(parse_error(&text), Some(TooExpensive), "{text}");
    }
}

#[test]
fn parameters_at_the_caps_are_accepted() {
    let (r, p) = (scrypt::R_MAX, scrypt::P_MAX);
    let passes = argon2::WORK_MAX / argon2::MEMORY_KIB_MAX;
    for text in [
        bcrypt_with(COST_MAX),
        bcrypt_with(COST_MAX).replace("bcrypt_sha256", "bcrypt"),
        pbkdf2_with(pbkdf2::ITERATIONS_MAX),
        scrypt_with([scrypt::N_MAX, 8, 1]),
        scrypt_with([scrypt::WORK_MAX / (r * p), r, p]),
        argon2_with([argon2::MEMORY_KIB_MAX, passes, argon2::LANES_MAX]),
        "argon2$argon2i$m=512,t=2,p=2$Wm05dlltRnljMkZzZERFeU16UTFObg$8302zhaD0V+p9PvmTsZrlA".to_owned(),
    ] {
        assert_eq!(parse_error(&text), None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn parsing_arbitrary_text_never_panics(
        text in prop_oneof![
            any::<String>(),
            "(bcrypt|bcrypt_sha256|pbkdf2_sha1|pbkdf2_sha256|scrypt|argon2)\\$\\PC{0,80}",
            "(argon2\\$argon2id\\$v=19\\$m=[0-9]{1,12},t=[0-9]{1,12},p=[0-9]{1,12}|scrypt\\$[0-9]{1,12})(\\$[A-Za-z0-9+/=]{0,24}){0,4}",
        ]
    ) {
        let _ = StoredHash::parse(&text);
    }
}

proptest! {
    // Fewer cases, because a case may compute a hash.
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_hash_with_a_changed_byte_does_not_match(index in 0_usize..74, byte in b' '..=b'~') {
        let cheap = hash("s3cret", 4, [9; 16]);
        let mut bytes = cheap.expose().as_bytes().to_vec();
        prop_assume!(bytes[index] != byte);
        bytes[index] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        // In `bcrypt_sha256$$2b$04$`, byte 16 is the version, and bytes 18 and 19 are the cost. The versions
        // 2a, 2b, 2x and 2y compute the same hash. A changed cost is skipped, because a high cost is slow.
        let is_version_or_cost = index == 16 || (18..20).contains(&index);
        if let Ok(other) = StoredHash::parse(&changed) && !is_version_or_cost {
            prop_assert!(!other.matches("s3cret"), "{}", changed);
        }
    }
}
