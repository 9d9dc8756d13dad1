//! The policy for new passwords.

use zxcvbn::{
    Entropy,
    feedback::{Feedback, Warning},
    zxcvbn,
};

use crate::domain::{Email, NewPassword, PasswordRefusal, PasswordWeakness, Username};

/// The number of characters that are judged: those of three pieces, so that a crafted password takes at most
/// three times the time of a piece. A password is refused if each of the pieces is guessable.
const JUDGED_CHARACTERS_MAX: usize = 3 * PIECE_CHARACTERS_MAX;
/// The number of characters of a piece. The time of the estimator grows faster than the square of the length,
/// and beyond 20 characters its 64-bit counters overflow (zxcvbn 3.1.1: 21! guesses, or 28 turns on a
/// keypad).
const PIECE_CHARACTERS_MAX: usize = 20;
/// Words that an attacker tries first, because they name the service.
const SERVICE_WORDS: [&str; 2] = ["kairos", "identity"];
/// The shortest part of a username or an email that the estimator receives. A shorter part does not make a
/// password that contains it guessable.
const WORD_CHARACTERS_MIN: usize = 3;
/// The most words that the estimator receives. An email may have a hundred parts, and each part takes time.
const WORDS_MAX: usize = 48;

/// The rules for new passwords.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The fewest characters (Unicode code points), at least 8. The other rules apply in addition.
    pub length_min_characters: u32,
    /// The lowest accepted score of the zxcvbn estimator: 0 accepts any password, 3 requires more than 10^8
    /// guesses, 4 more than 10^10.
    pub score_min: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self { length_min_characters: 8, score_min: 3 }
    }
}

impl Policy {
    /// Accepts `text` unchanged if it is long enough and not guessable by an attacker that has the username,
    /// the email, and lists of common passwords and words. The service takes the two steps apart, because it
    /// counts the password between them.
    ///
    /// # Errors
    /// [`PasswordRefusal`] with advice. It contains no part of the password.
    pub fn admit(
        &self,
        text: String,
        username: Option<&Username>,
        email: Option<&Email>,
    ) -> Result<NewPassword, PasswordRefusal> {
        let password = NewPassword::parse(text, self.length_min_characters)?;
        self.judge(&password, username, email)?;
        Ok(password)
    }

    /// Refuses a password that an attacker who has the username and the email would guess.
    ///
    /// A password is at least as strong as its strongest piece of `PIECE_CHARACTERS_MAX` characters, since an
    /// attacker must guess that piece too. The pieces in the first `JUDGED_CHARACTERS_MAX` characters are
    /// judged. A piece takes about one millisecond, and up to 12 if it is crafted from look-alike symbols.
    /// [`Passwords::judge`](super::Passwords::judge) runs this on the hashing threads, where it does not
    /// delay look-ups.
    ///
    /// # Errors
    /// [`PasswordRefusal`] with advice. It contains no part of the password.
    pub fn judge(
        &self,
        password: &NewPassword,
        username: Option<&Username>,
        email: Option<&Email>,
    ) -> Result<(), PasswordRefusal> {
        let words = guessable_words(username, email);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let judged: String = password.expose().chars().take(JUDGED_CHARACTERS_MAX).collect();

        let mut best: Option<Entropy> = None;
        for piece in pieces(&judged) {
            let estimate = zxcvbn(&piece, &words);
            if u8::from(estimate.score()) >= self.score_min {
                return Ok(());
            }
            // The strongest piece: the refusal states what is missing there.
            best = best.into_iter().chain([estimate]).max_by_key(Entropy::guesses);
        }
        let feedback = best.as_ref().and_then(Entropy::feedback);
        let weakness = feedback.and_then(Feedback::warning).map_or(PasswordWeakness::Other, weakness);
        Err(PasswordRefusal::Guessable { weakness, why: advice(feedback) })
    }
}

/// Splits a text into pieces of at most [`PIECE_CHARACTERS_MAX`].
fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(PIECE_CHARACTERS_MAX).map(String::from_iter).collect();
    pieces.into_iter()
}

/// Returns the words that an attacker tries first: the name of the service, and the username and the email as
/// a whole, without separators, and in parts.
///
/// A word that is longer than a piece is split into pieces, like the password.
fn guessable_words(username: Option<&Username>, email: Option<&Email>) -> Vec<String> {
    let name = username.map_or("", Username::as_str);
    let key = username.map_or("", Username::key);
    let [address, local, domain] =
        email.map_or([""; 3], |email| [email.as_str(), email.local_part(), email.domain()]);
    let parts = [name, address].into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));

    SERVICE_WORDS
        .into_iter()
        .chain([name, key, address, local])
        .chain(domain.split('.'))
        .map(str::to_lowercase)
        .chain([without_separators(name), without_separators(local)])
        .chain(parts.map(str::to_lowercase))
        .flat_map(|text| pieces(&text).collect::<Vec<_>>())
        .filter(|word| word.chars().nth(WORD_CHARACTERS_MIN - 1).is_some())
        .take(WORDS_MAX)
        .collect()
}

/// Returns the letters and digits of a text in lower case.
fn without_separators(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Returns the weakness that a warning of zxcvbn names.
const fn weakness(warning: Warning) -> PasswordWeakness {
    use PasswordWeakness as P;
    use Warning as W;
    match warning {
        W::ThisIsATop10Password
        | W::ThisIsATop100Password
        | W::ThisIsACommonPassword
        | W::ThisIsSimilarToACommonlyUsedPassword => P::Common,
        W::StraightRowsOfKeysAreEasyToGuess | W::ShortKeyboardPatternsAreEasyToGuess => P::KeyboardPattern,
        W::RepeatsLikeAaaAreEasyToGuess | W::RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess => P::Repeats,
        W::SequencesLikeAbcAreEasyToGuess => P::Sequence,
        W::RecentYearsAreEasyToGuess | W::DatesAreOftenEasyToGuess => P::Date,
        W::AWordByItselfIsEasyToGuess => P::Word,
        W::NamesAndSurnamesByThemselvesAreEasyToGuess | W::CommonNamesAndSurnamesAreEasyToGuess => P::Name,
    }
}

/// Joins zxcvbn's warning and suggestions, or returns a default suggestion if there are none. zxcvbn's texts
/// are constants, so they contain no part of the password.
fn advice(feedback: Option<&Feedback>) -> String {
    let warning = feedback.and_then(Feedback::warning).map(|warning| warning.to_string());
    let suggestions = feedback.into_iter().flat_map(Feedback::suggestions).map(ToString::to_string);
    let sentences: Vec<String> = warning.into_iter().chain(suggestions).collect();

    if sentences.is_empty() {
        return "Add another word or two. Uncommon words are better.".to_owned();
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> Option<String> {
        let username = Username::parse("Ada Lovelace").unwrap();
        let email = Email::parse("countess.ada@analytical-engine.example").unwrap();
        match Policy::default().admit(text.to_owned(), Some(&username), Some(&email)) {
            Ok(password) => {
                assert_eq!(password.expose(), text);
                None
            }
            Err(refusal) => Some(refusal.to_string()),
        }
    }

    #[test]
    fn common_passwords_are_refused() {
        for text in [
            "password",
            "123456789",
            "12345678",
            "1234567890",
            "qwertyuiop",
            "iloveyou",
            "princess",
            "sunshine",
            "football",
            "baseball",
            "superman",
            "password1",
            "password123",
            "Password1",
            "Passw0rd",
            "P@ssw0rd",
            "p@ssw0rd!",
            "trustno1",
            "letmein1",
            "welcome1",
            "Welcome123",
            "qwerty123",
            "1q2w3e4r",
            "1qaz2wsx",
            "zaq12wsx",
            "abcd1234",
            "abc12345",
            "11111111",
            "00000000",
            "87654321",
            "asdfghjkl",
            "starwars",
            "whatever",
            "computer",
            "internet",
            "dragon12",
            "monkey123",
            "changeme",
            "administrator",
            "admin123",
            "jennifer",
            "michelle",
            "aaaaaaaa",
            "abcdefgh",
            "qwertyui",
            "q1w2e3r4",
            "1234qwer",
            "liverpool",
            "charlie1",
        ] {
            assert!(refusal(text).is_some(), "{text}");
        }
    }

    #[test]
    fn passwords_from_the_username_the_email_or_the_service_name_are_refused() {
        for text in [
            "adalovelace",
            "Ada Lovelace",
            "lovelace1815",
            "ADALOVELACE!",
            "countess.ada",
            "CountessAda1!",
            "analytical-engine",
            "countess.ada@analytical-engine.example",
            "analytical1",
            "ecalevol",
            "kairos123",
            "KairosIdentity",
        ] {
            assert!(refusal(text).is_some(), "{text}");
        }
    }

    #[test]
    fn phrases_and_random_texts_are_accepted() {
        for text in [
            "correct horse battery staple",
            "vV8#qLz!2pRt",
            "rondo zeppelin umbra kiosk",
            "дом-кот-лампа-весло",
            "Ada likes 17 green teapots",
            "🔑🦊🌋🧭🪕🦩🛶🧿🎷",
            "x9$Lm2@vQ7",
            "  nib fjord waltz  ",
        ] {
            assert_eq!(refusal(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_has_advice_and_no_part_of_the_password() {
        let refusal_text = refusal("password1").unwrap();
        assert!(refusal_text.starts_with("is too easy to guess: This is"), "{refusal_text}");
        assert!(!refusal("zaq12wsx").unwrap().contains("zaq"));
        assert_eq!(refusal("short").unwrap(), "must be at least 8 characters");
    }

    #[test]
    fn a_refusal_names_the_weakness() {
        use PasswordWeakness as P;
        for (text, expected) in [
            ("password123", P::Common),
            ("P@ssw0rd!", P::Common),
            ("zxcvbnm,./", P::KeyboardPattern),
            ("kkkkkkkkkk", P::Repeats),
            ("bcdefghijk", P::Sequence),
            ("13.07.1983", P::Date),
            ("municipality", P::Word),
            ("kowalczyk", P::Name),
            ("lovelace1815", P::Other),
        ] {
            let username = Username::parse("Ada Lovelace").unwrap();
            match Policy::default().admit(text.to_owned(), Some(&username), None) {
                Err(PasswordRefusal::Guessable { weakness, .. }) => assert_eq!(weakness, expected, "{text}"),
                other => panic!("{text}: {:?}", other.map(|_| ())),
            }
        }
    }

    #[test]
    fn the_settings_determine_length_and_score() {
        let admit = |length_min_characters, score_min, text: &str| {
            Policy { length_min_characters, score_min }.admit(text.to_owned(), None, None)
        };
        assert!(admit(8, 0, "password").is_ok());
        assert!(admit(8, 3, "x9$Lm2@vQ7").is_ok());
        assert!(admit(15, 3, "x9$Lm2@vQ7").is_err());
        let refusal = admit(8, 4, "TestMeNow!").unwrap_err();
        assert!(refusal.to_string().contains("Add another word"), "{refusal}");
    }

    #[test]
    fn the_longest_passwords_and_names_are_judged() {
        let username = Username::parse(&"名".repeat(150)).unwrap();
        let email = Email::parse(&format!("{}@example.com", "a.".repeat(31) + "a")).unwrap();
        let is_guessable = |text: String| {
            let admitted = Policy::default().admit(text, Some(&username), Some(&email));
            matches!(admitted, Err(PasswordRefusal::Guessable { .. }))
        };
        // Each of them has the maximum of 1,024 bytes.
        for text in ["x".repeat(1_024), "abc1".repeat(256), "é".repeat(512), "p@ssw0rd".repeat(128)] {
            assert!(is_guessable(text.clone()), "{text}");
        }
        for text in [email.as_str(), email.local_part()] {
            assert!(is_guessable(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn one_strong_piece_is_enough() {
        // The second piece is strong; then the sixth, which is not judged.
        assert_eq!(refusal(&format!("{}rondo zeppelin umbra", "a".repeat(20))), None);
        assert!(refusal(&format!("{}rondo zeppelin umbra", "a".repeat(100))).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn judging_never_panics(
            text in prop_oneof![any::<String>(), "[a-zA-Z0-9@$!|+7(5 ]{8,100}", "[123456789/*\\-+.]{20,100}", "[qwertyasdfzxcvQWERTY]{20,100}"],
            name in "[A-Za-z@ 0-9]{0,40}",
        ) {
            let username = Username::from_stored(name.clone(), name);
            if let Err(refusal) = Policy::default().admit(text.clone(), Some(&username), None) {
                // A shorter text can occur in the words of the refusal.
                prop_assert!(text.chars().count() < 8 || !refusal.to_string().contains(&text));
            }
        }
    }
}
