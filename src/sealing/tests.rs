use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{key::SealingKey, *};
use crate::{domain::Sealed, entropy::Entropy};

/// Returns the text of a key, a different one for each `byte`.
fn key_text(byte: u8) -> String {
    let mut bytes = [byte; 32];
    // 32 equal bytes are refused as not random.
    bytes[0] = !byte;
    STANDARD.encode(bytes)
}

fn keys(bytes: &[u8]) -> SealingKeys {
    let lines: Vec<_> = bytes.iter().copied().map(key_text).collect();
    SealingKeys::parse(&lines.join("\n")).unwrap()
}

const SECRET: [u8; 32] = [5; 32];

const ADA: Purpose<'static> = Purpose::MailToken { message_id: "1@a.example", recipient: "ada@example.com" };

fn sealed(keys: &SealingKeys) -> Sealed {
    keys.seal(ADA, &SECRET, &Entropy::seeded(1))
}

/// Seals as an earlier release did, whose values name no key.
fn sealed_without_key_id(byte: u8, purpose: Purpose<'_>) -> Sealed {
    let key = SealingKey::from_base64(&key_text(byte)).unwrap();
    let sealed = key.seal(purpose.context_without_row(), &SECRET, &Entropy::seeded(1));
    Sealed::from_bytes([&[1][..], &sealed].concat())
}

#[test]
fn a_sealed_secret_opens_only_with_its_key_and_for_its_purpose() {
    let sealed = sealed(&keys(&[1]));

    assert_eq!(keys(&[1]).open(ADA, &sealed), Ok(SECRET));
    assert_eq!(keys(&[1]).open(Purpose::PageToken, &sealed), Err(UnsealError::Changed));
    assert!(matches!(keys(&[2]).open(ADA, &sealed), Err(UnsealError::UnknownKey { .. })));
}

#[test]
fn a_sealed_secret_opens_only_in_its_row() {
    let mails = [
        Purpose::MailToken { message_id: "2@a.example", recipient: "ada@example.com" },
        Purpose::MailToken { message_id: "1@a.example", recipient: "eve@example.com" },
        Purpose::MailToken { message_id: "1@a.exampleada@", recipient: "example.com" },
    ];
    for other in mails {
        assert_eq!(keys(&[1]).open(other, &sealed(&keys(&[1]))), Err(UnsealError::Changed), "{other:?}");
    }
    let seed = keys(&[1]).seal(Purpose::SigningSeed { key_id: "a" }, &SECRET, &Entropy::seeded(1));
    assert!(keys(&[1]).open(Purpose::SigningSeed { key_id: "a" }, &seed).is_ok());
    assert_eq!(keys(&[1]).open(Purpose::SigningSeed { key_id: "b" }, &seed), Err(UnsealError::Changed));
}

#[test]
fn the_first_key_seals_and_all_keys_open() {
    let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
    assert_eq!(both.open(ADA, &sealed(&old)), Ok(SECRET));
    assert_eq!(new.open(ADA, &sealed(&both)), Ok(SECRET));
    let error = new.open(ADA, &sealed(&old)).unwrap_err().to_string();
    assert!(error.contains(&old.ring().current().to_string()), "{error}");
    assert_eq!(SealingKeys::key_of(sealed(&both).as_bytes()), Some(new.ring().current()));
}

#[test]
fn a_value_that_names_no_key_opens_with_each_key_of_the_file() {
    let old = sealed_without_key_id(1, ADA);
    assert_eq!(SealingKeys::key_of(old.as_bytes()), None);
    assert_eq!(keys(&[1]).open(ADA, &old), Ok(SECRET));
    assert_eq!(keys(&[3, 2, 1]).open(ADA, &old), Ok(SECRET));
    assert_eq!(keys(&[2]).open(ADA, &old), Err(UnsealError::NoKey));
    assert_eq!(keys(&[1]).open(Purpose::PageToken, &old), Err(UnsealError::NoKey));
}

#[test]
fn a_changed_byte_or_a_truncation_is_detected() {
    let sealed = sealed(&keys(&[1]));
    let open = |bytes: Vec<u8>| keys(&[1]).open(ADA, &Sealed::from_bytes(bytes));
    for index in 0..sealed.as_bytes().len() {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[index] ^= 1;
        assert!(open(bytes).is_err(), "byte {index}");
    }
    for length in 0..sealed.as_bytes().len() {
        assert!(open(sealed.as_bytes()[..length].to_vec()).is_err(), "{length} bytes");
    }
}

#[test]
fn sealing_a_secret_twice_yields_different_bytes() {
    let (keys, entropy) = (keys(&[1]), Entropy::seeded(1));
    assert_ne!(keys.seal(ADA, &SECRET, &entropy), keys.seal(ADA, &SECRET, &entropy));
}

#[test]
fn a_text_that_is_not_32_random_bytes_is_not_a_key() {
    for text in [String::new(), "hunter2".into(), STANDARD.encode([1; 31]), STANDARD.encode([0; 32])] {
        assert!(SealingKeys::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn a_key_file_has_one_key_per_line_and_comments() {
    let (one, two) = (key_text(1), key_text(2));
    let ring = KeyRing::parse(&format!("# current\n  {one}  # since May\n\n{two}\r\n")).unwrap();
    assert_eq!(ring.ids(), keys(&[1, 2]).ring().ids());
    let error = |text: String| KeyRing::parse(&text).err().unwrap().to_string();
    assert!(error(format!("{one}\nshort\n")).starts_with("line 2: expected 32 random bytes"));
    assert!(error(format!("{one}\n{two}\n{one}\n")).starts_with("line 3 repeats the key"));
    assert!(error("# nothing\n".to_owned()).contains("no key"));
    let many: Vec<_> = (1..20).map(key_text).collect();
    assert!(error(many.join("\n")).contains("more than 16 keys"));
}

fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

#[test]
fn a_missing_key_file_is_created_once_with_mode_600() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/secret.key");
    let sealed = sealed(&SealingKeys::load_or_create(&path, &Entropy::system()).unwrap());

    let again = SealingKeys::load_or_create(&path, &Entropy::system()).unwrap();

    assert!(again.open(ADA, &sealed).is_ok());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_error_names_an_invalid_key_file() {
    let (_folder, path) = file("short");
    let error = SealingKeys::load_or_create(&path, &Entropy::system()).unwrap_err().to_string();
    assert!(error.contains("secret.key") && error.contains("openssl rand"), "{error}");
}

#[test]
fn a_changed_key_file_keeps_its_comments_its_mode_and_its_other_keys() {
    let (folder, path) = file(&format!("# kairos\n{} # old\n# end", key_text(1)));
    let (changed, old) = (KeyFile::at(&path), keys(&[1]).ring().current());

    let added = changed.add(&Entropy::system()).unwrap();
    assert_eq!(changed.ring().unwrap().ids(), [old, added]);
    changed.make_first(added).unwrap();
    assert_eq!(changed.ring().unwrap().ids(), [added, old]);
    assert!(matches!(changed.remove(added), Err(KeyFileError::Current { .. })));
    changed.remove(old).unwrap();
    assert!(matches!(changed.remove(old), Err(KeyFileError::Unknown { .. })));
    assert!(matches!(changed.make_first(old), Err(KeyFileError::Unknown { .. })));

    assert_eq!(changed.ring().unwrap().ids(), [added]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# kairos\n") && text.ends_with("\n# end\n"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn replace(path: &Path, bytes: &[u8]) {
    let lines: Vec<_> = bytes.iter().copied().map(key_text).collect();
    crate::publish::publish(path, lines.join("\n").as_bytes(), crate::publish::Existing::Replace).unwrap();
}

#[test]
fn a_value_under_an_unknown_key_makes_the_process_read_its_file_again() {
    let (_folder, path) = file(&key_text(1));
    let running = SealingKeys::load(&path).unwrap();
    let under_new = sealed(&keys(&[2]));
    let error = running.open(ADA, &under_new).unwrap_err().to_string();
    for part in [&path.display().to_string(), &keys(&[2]).ring().shown(), &keys(&[1]).ring().shown()] {
        assert!(error.contains(part), "{part}: {error}");
    }

    replace(&path, &[1, 2]);
    assert_eq!(running.open(ADA, &under_new), Ok(SECRET));
    assert_eq!(running.ring().current(), keys(&[1]).ring().current());
}

#[test]
fn a_file_without_the_current_key_is_not_loaded() {
    let (_folder, path) = file(&key_text(1));
    let running = SealingKeys::load(&path).unwrap();
    replace(&path, &[2]);
    let error = running.reload().unwrap_err().to_string();
    assert!(error.contains(&running.ring().shown()) && error.contains("as the second"), "{error}");
    assert!(running.open(ADA, &sealed(&keys(&[1]))).is_ok());
    replace(&path, &[2, 1]);
    running.reload().unwrap();
    assert_eq!(running.ring().current(), keys(&[2]).ring().current());
}
