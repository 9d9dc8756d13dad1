//! What a new password must be.

use zxcvbn::{Entropy, feedback::Feedback, zxcvbn};

use crate::domain::{Email, NewPassword, PasswordRefusal, Username};

/// How much of a password is judged: what has nothing to be said for it in three pieces is refused.
const JUDGED_CHARACTERS_MAX: usize = 60;
/// How much of it is judged at once. The estimator's time grows faster than the square of the length, and beyond 20
/// characters its 64-bit counters overflow (zxcvbn 3.1.1: 21! guesses, or 28 turns on a keypad).
const PIECE_CHARACTERS_MAX: usize = 20;
/// Words that an attacker would try first, because of where the password is for.
const SERVICE_WORDS: [&str; 2] = ["kairos", "identity"];
/// Parts of a name or an address below this say nothing about a password that contains them.
const WORD_CHARACTERS_MIN: usize = 3;
/// An address may have a hundred parts; each one is work.
const WORDS_MAX: usize = 48;

/// Which new passwords are good enough.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The fewest characters (Unicode code points). At least 8; every other rule comes on top.
    pub length_min_characters: u32,
    /// The lowest score of the zxcvbn estimator, 0 (anything) to 4 (over 10¹⁰ guesses); 3 is over 10⁸.
    pub score_min: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self { length_min_characters: 8, score_min: 3 }
    }
}

impl Policy {
    /// Takes `text` exactly as received, if it is long enough and not guessable by somebody who has lists of common
    /// passwords and words, and knows the username and the email.
    ///
    /// A password is as good as its best piece of 20 characters, since who guesses the whole guesses that piece too; three
    /// are judged. About a millisecond each, up to 12 for one made of look-alike symbols on purpose: bounded, but
    /// [`Passwords::admit`](super::Passwords::admit) does it where it delays no look-up.
    ///
    /// # Errors
    /// [`PasswordRefusal`], with what would help; never anything of the password.
    pub fn admit(
        &self,
        text: String,
        username: Option<&Username>,
        email: Option<&Email>,
    ) -> Result<NewPassword, PasswordRefusal> {
        let password = NewPassword::parse(text, self.length_min_characters)?;

        let words = known_words(username, email);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let judged: String = password.expose().chars().take(JUDGED_CHARACTERS_MAX).collect();

        let mut best: Option<Entropy> = None;
        for piece in pieces(&judged) {
            let estimate = zxcvbn(&piece, &words);
            if u8::from(estimate.score()) >= self.score_min {
                return Ok(password);
            }
            best = best.into_iter().chain([estimate]).max_by_key(Entropy::guesses);
        }
        Err(PasswordRefusal::Guessable { why: why(best.as_ref().and_then(Entropy::feedback)) })
    }
}

fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(PIECE_CHARACTERS_MAX).map(String::from_iter).collect();
    pieces.into_iter()
}

/// What an attacker knows who has the username and the address: both whole, run together, in parts, and the name of the service.
///
/// What is longer than a piece is known in pieces, as the password is judged.
fn known_words(username: Option<&Username>, email: Option<&Email>) -> Vec<String> {
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
        .chain([run_together(name), run_together(local)])
        .chain(parts.map(str::to_lowercase))
        .flat_map(|text| pieces(&text).collect::<Vec<_>>())
        .filter(|word| word.chars().nth(WORD_CHARACTERS_MIN - 1).is_some())
        .take(WORDS_MAX)
        .collect()
}

fn run_together(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The estimator's own sentences, which are fixed texts.
fn why(feedback: Option<&Feedback>) -> String {
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
    fn the_passwords_that_everybody_tries_first_are_refused() {
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
    fn what_is_known_about_the_person_is_refused() {
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
    fn phrases_and_random_texts_are_taken() {
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
    fn a_refusal_helps_and_shows_nothing_of_the_password() {
        let told = refusal("password1").unwrap();
        assert!(told.starts_with("is too easy to guess: This is"), "{told}");
        assert!(!refusal("zaq12wsx").unwrap().contains("zaq"));
        assert_eq!(refusal("short").unwrap(), "must be at least 8 characters");
    }

    #[test]
    fn the_settings_decide() {
        let admit = |length_min_characters, score_min, text: &str| {
            Policy { length_min_characters, score_min }.admit(text.to_owned(), None, None)
        };
        assert!(admit(8, 0, "password").is_ok());
        assert!(admit(15, 3, "x9$Lm2@vQ7").is_err());
        let told = admit(8, 4, "TestMeNow!").unwrap_err();
        assert!(told.to_string().contains("Add another word"), "{told}");
    }

    #[test]
    fn the_longest_passwords_and_names_are_judged_too() {
        let username = Username::parse(&"名".repeat(150)).unwrap();
        let email = Email::parse(&format!("{}@example.com", "a.".repeat(31) + "a")).unwrap();
        for text in ["x".repeat(1_024), "abc1".repeat(256), "é".repeat(512), "p@ssw0rd".repeat(128)] {
            assert!(Policy::default().admit(text, Some(&username), Some(&email)).is_err());
        }
        for text in [email.as_str(), email.local_part()] {
            assert!(Policy::default().admit(text.to_owned(), Some(&username), Some(&email)).is_err());
        }
    }

    #[test]
    fn one_good_piece_is_enough() {
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
                prop_assert!(text.chars().count() < 8 || !refusal.to_string().contains(&text));
            }
        }
    }
}
