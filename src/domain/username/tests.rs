use proptest::prelude::*;

use super::{InvalidUsername::*, *};

fn parsed(text: &str) -> Username {
    Username::parse(text).unwrap_or_else(|refusal| panic!("{text:?}: {refusal}"))
}

#[test]
fn valid_names_are_kept_unchanged() {
    for name in [
        "ada",
        "Ada Lovelace",
        "O'Brien; --",
        "Jean-Luc (2nd)",
        "ada_99",
        "Ångström",
        "José Müller",
        "张伟",
        "山田 太郎",
        "ひらがな カタカナ 漢字 Latin",
        "김철수 Kim",
        "احمد",
        "דוד",
        "Дмитрий",
        "Νίκος",
        "हिन्दी",
        "ไทย",
        "O’Neill",
        "42",
        "x",
        "Nguyễn Văn Đức",
        "<a href=x>",
        "Çelik İpek",
        "ß",
    ] {
        assert_eq!(parsed(name).as_str(), name);
    }
}

#[test]
fn the_display_form_has_plain_letters_and_single_spaces() {
    for (text, display) in [
        ("  Ada \u{a0}\u{2003} Lovelace ", "Ada Lovelace"),
        ("Ａｄａ", "Ada"),
        ("A\u{30a}ngstro\u{308}m", "Ångström"),
        ("ﬁnn", "finn"),
        ("ſam", "sam"),
        ("①", "1"),
        ("K", "K"),
    ] {
        assert_eq!(parsed(text).as_str(), display, "{text:?}");
    }
}

#[test]
fn names_that_differ_in_case_or_form_share_a_key() {
    for (one, other) in [
        ("Ada", "ADA"),
        ("Ada  Lovelace", "\u{3000}ada lovelace"),
        ("Ａｄａ", "ada"),
        ("Straße", "STRASSE"),
        ("STRAẞE", "strasse"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("ısı", "ISI"),
        ("ſam", "SAM"),
        ("ﬃ", "FFI"),
        ("Ångström", "ÅNGSTRO\u{308}M"),
        ("ǅ", "dž"),
        ("ΐ", "Ϊ\u{301}"),
    ] {
        assert_eq!(parsed(one).key(), parsed(other).key(), "{one:?} and {other:?}");
        assert_eq!(Username::comparison_key(one), Username::comparison_key(other));
    }
}

#[test]
fn different_names_have_different_keys() {
    for (one, other) in [("ada", "ada1"), ("ada", "àda"), ("a da", "ada"), ("İ", "I"), ("oneill", "o'neill")]
    {
        assert_ne!(parsed(one).key(), parsed(other).key(), "{one:?} and {other:?}");
    }
}

#[test]
fn each_violated_rule_has_its_error() {
    let hostile: &[(&str, InvalidUsername)] = &[
        ("", Empty),
        ("   ", Empty),
        ("\u{a0}\u{3000}", Empty),
        ("ada@example.com", At),
        ("ada＠example.com", At),
        ("ada﹫example.com", At),
        ("ada\0", Invisible),
        ("ada\r\nBcc: eve", Invisible),
        ("ada\t", Invisible),
        ("ada\u{85}", Invisible),
        ("ada\u{2028}", Invisible),
        ("al\u{200b}ice", Invisible),
        ("al\u{200c}ice", Invisible),
        ("alice\u{200d}", Invisible),
        ("क\u{94d}\u{200d}ष", Invisible),
        ("\u{202e}ecila", Invisible),
        ("\u{2066}alice\u{2069}", Invisible),
        ("ali\u{ad}ce", Invisible),
        ("ali\u{34f}ce", Invisible),
        ("alice\u{fe0f}", Invisible),
        ("alice\u{feff}", Invisible),
        ("alice\u{e0041}\u{e007f}", Invisible),
        ("alice\u{3164}", Invisible),
        ("\u{ffa0}", Invisible),
        ("\u{2800}", Invisible),
        ("\u{115f}", Invisible),
        ("👩\u{200d}🚀", Invisible),
        ("🚀", Character),
        ("alice\u{e000}", Character),
        ("alice\u{10ffff}", Character),
        ("alice\u{378}", Character),
        ("alice♥", Character),
        ("a⁄b", Character),
        ("ꭺda", Character),
        ("ǃada", Character),
        ("аlice", MixedScripts),
        ("pаypal", MixedScripts),
        ("Αlice", MixedScripts),
        ("Ada Дмитрий", MixedScripts),
        ("احمد דוד", MixedScripts),
        ("\u{301}ada", StackedMarks),
        ("ada \u{301}", StackedMarks),
        ("a\u{316}\u{317}\u{318}\u{319}\u{31c}", StackedMarks),
    ];
    for (text, refusal) in hostile {
        assert_eq!(Username::parse(text), Err(*refusal), "{text:?}");
    }
}

#[test]
fn a_chosen_name_holds_no_web_address_and_an_existing_one_may() {
    for text in ["ｗｗｗ．evil．example", "evil․com", "Ada https://evil.example/unlock"] {
        assert_eq!(Username::choose(text), Err(Link), "{text:?}");
        assert!(parsed(text).holds_link(), "{text:?}");
    }
    assert!(Username::choose("ada.lovelace").is_ok());
    assert_eq!(Username::choose("ada@example.com"), Err(At));
}

#[test]
fn length_is_counted_in_characters_of_the_display_form() {
    assert_eq!(parsed(&"名".repeat(150)).as_str().chars().count(), 150);
    assert_eq!(Username::parse(&"名".repeat(151)), Err(TooLong));
    assert_eq!(parsed(&format!("{}x{}", " ".repeat(400), " ".repeat(400))).as_str(), "x");
    assert_eq!(Username::parse(&format!("x{}", " ".repeat(1_024))), Err(TooLong));
    assert_eq!(Username::parse(&" ".repeat(100_000)), Err(Empty));
    assert_eq!(Username::parse(&format!("e{}", "\u{301}".repeat(10_000))), Err(TooLong));
}

#[test]
fn the_longest_fold_of_150_characters_fits_its_column() {
    for character in ["ΐ", "ΰ", "ﬃ", "ß", "İ", "ŉ", "ẖ", "ᾷ"] {
        let key = folded(&character.repeat(150));
        assert!(key.is_ok_and(|key| key.chars().count() <= USERNAME_KEY_CHARACTERS_MAX), "{character}");
    }
}

#[test]
fn folding_any_single_character_is_idempotent() {
    for c in '\0'..=char::MAX {
        if let Ok(key) = folded(&c.nfkc().collect::<String>()) {
            assert_eq!(folded_once(&key), key, "{c:?}");
        } else {
            panic!("folding {c:?} never becomes stable");
        }
    }
}

#[test]
fn stored_names_are_not_validated() {
    let imported = Username::from_stored("user@example".to_owned(), "user@example".to_owned());
    assert_eq!((imported.as_str(), imported.key()), ("user@example", "user@example"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_text_never_panics_and_parsing_is_idempotent(
        text in prop_oneof![any::<String>(), "[\\p{Latin}\\p{M} ]{1,160}", "[\\p{Greek}ßİŉ ]{1,160}", "[\\p{L}\\p{N}\\p{P}]{1,6}", "[a-zA-Z0-9à-žßſİıǅﬁŉẞ' ]{1,60}"]
    ) {
        if let Ok(name) = Username::parse(&text) {
            prop_assert!((1..=USERNAME_CHARACTERS_MAX).contains(&name.as_str().chars().count()));
            prop_assert!((1..=USERNAME_KEY_CHARACTERS_MAX).contains(&name.key().chars().count()));
            prop_assert!(!name.key().contains('@') && !name.as_str().contains('@'));
            prop_assert_eq!(&folded_once(name.key()), name.key());
            prop_assert_eq!(Username::parse(name.as_str()), Ok(name));
        }
    }

    #[test]
    fn case_width_and_composition_do_not_change_the_key(text in "[a-zA-Z0-9éÉöÖßñ][a-zA-Z0-9éÉöÖßñ ]{0,40}") {
        let key = Username::comparison_key(&text);
        let wide: String = text.chars().map(|c| if ('!'..='~').contains(&c) { char::from_u32(c as u32 + 0xfee0).unwrap_or(c) } else { c }).collect();
        prop_assert!(key.is_ok());
        prop_assert_eq!(&Username::comparison_key(&text.to_uppercase()), &key);
        prop_assert_eq!(&Username::comparison_key(&text.to_lowercase()), &key);
        prop_assert_eq!(&Username::comparison_key(&text.nfd().collect::<String>()), &key);
        prop_assert_eq!(&Username::comparison_key(&wide), &key);
        let spaced = format!(" {text}  ");
        prop_assert_eq!(&Username::comparison_key(&spaced), &key);
    }
}

#[test]
fn an_imported_name_may_break_rules_and_has_a_key_of_its_own() {
    let (one, other) = (AuthToken::from_random([1; 16]), AuthToken::from_random([2; 16]));
    for text in [" alice", "user@example.com", "\u{202e}ecila", " "] {
        let kept = Username::parse_imported(text, one).unwrap();
        assert_eq!(kept.as_str(), text);
        assert_ne!(kept.key(), Username::parse_imported(text, other).unwrap().key());
        assert_eq!(Username::parse(kept.key()), Err(InvalidUsername::At));
    }
    assert_eq!(Username::parse_imported("", one), Err(InvalidUsername::Empty));
    assert_eq!(Username::parse_imported(&"u".repeat(151), one), Err(InvalidUsername::TooLong));
    assert_eq!(Username::parse_imported("a\0", one), Err(InvalidUsername::Invisible));
}
