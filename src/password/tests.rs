use super::*;
use crate::entropy::Entropy;

const COST: u32 = 4;
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

fn env(seed: u64) -> Env {
    Env { clock: Clock::system(), entropy: Entropy::seeded(seed) }
}

fn passwords() -> Passwords {
    let options =
        PasswordOptions { cost: COST, threads: 2, queue_length: 64, refusal_time_max: REFUSAL_TIME_MAX };
    Passwords::start(options, env(1)).unwrap()
}

fn typed(text: &str) -> Password {
    Password::parse(text.to_owned()).unwrap()
}

fn chosen(text: &str) -> NewPassword {
    NewPassword::parse(text.to_owned(), 1).unwrap()
}

fn stored(text: &str) -> PasswordHash {
    PasswordHash::from_stored(text.to_owned())
}

async fn verify(
    passwords: &Passwords,
    text: &str,
    hash: Option<PasswordHash>,
) -> Result<Verdict, HashingError> {
    passwords.verify(passwords.reserve()?, &typed(text), hash).await
}

#[tokio::test]
async fn a_new_hash_verifies_and_needs_no_rewrite() {
    let passwords = passwords();
    let hash = passwords.hash(&chosen("correct horse")).await.unwrap();
    assert!(hash.expose().starts_with("bcrypt_sha256$$2b$04$"));

    let right = verify(&passwords, "correct horse", Some(hash.clone())).await;
    assert_eq!(right, Ok(Verdict::Correct { needs_rewrite: false }));
    assert_eq!(verify(&passwords, "Correct horse", Some(hash)).await, Ok(Verdict::Wrong));
}

#[tokio::test]
async fn hashes_of_the_same_password_differ() {
    let passwords = passwords();
    let one = passwords.hash(&chosen("correct horse")).await.unwrap();
    let other = passwords.rehash(&typed("correct horse")).await.unwrap();
    assert_ne!(one.expose(), other.expose());
}

#[tokio::test]
async fn an_old_scheme_or_a_lower_cost_needs_one_rewrite() {
    // A wrong password needs none.
    let old_scheme = "bcrypt$$2b$04$fi.z49No.0U3RNdS5IO4E.K2Ths4JbjtD57l8DdFuGEwiy5mqUMjW";
    assert_eq!(verify(&passwords(), "rounds-8", Some(stored(old_scheme))).await, Ok(Verdict::Wrong));

    let options =
        PasswordOptions { cost: 5, threads: 1, queue_length: 8, refusal_time_max: REFUSAL_TIME_MAX };
    let higher_cost = Passwords::start(options, env(2)).unwrap();
    let old = passwords().hash(&chosen("s3cret")).await.unwrap();
    assert_eq!(verify(&higher_cost, "s3cret", Some(old)).await, Ok(Verdict::Correct { needs_rewrite: true }));

    let new = higher_cost.rehash(&typed("s3cret")).await.unwrap();
    assert_eq!(
        verify(&higher_cost, "s3cret", Some(new.clone())).await,
        Ok(Verdict::Correct { needs_rewrite: false })
    );
    // A hash of a higher cost than the setting is kept.
    assert_eq!(
        verify(&passwords(), "s3cret", Some(new)).await,
        Ok(Verdict::Correct { needs_rewrite: false })
    );

    let plain = "bcrypt$$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa";
    let verdict = verify(&passwords(), "rounds-4", Some(stored(plain))).await;
    assert_eq!(verdict, Ok(Verdict::Correct { needs_rewrite: true }));
}

#[tokio::test]
async fn no_password_is_right_for_an_unknown_user() {
    let passwords = passwords();
    let dummy_hash = passwords.shared.dummy_hash.expose().to_owned();
    for text in ["hunter2", "password", "!", &dummy_hash] {
        assert_eq!(verify(&passwords, text, None).await, Ok(Verdict::Wrong));
    }
}

#[test]
fn a_match_of_the_dummy_hash_is_wrong() {
    let hash = StoredHash::parse(format::hash("s3cret", COST, [3; 16]).expose()).unwrap();
    for (can_be_right, verdict) in
        [(true, Verdict::Correct { needs_rewrite: false }), (false, Verdict::Wrong)]
    {
        assert_eq!(check("s3cret", &hash, can_be_right, COST), verdict);
    }
}

#[tokio::test]
async fn an_unusable_stored_value_is_a_wrong_password() {
    let passwords = passwords();
    for text in [
        "",
        "!unusable",
        "s3cret",
        "md5$$e070633e079062bc5709a6d9c9fbaa69",
        "bcrypt$mine",
        "bcrypt$$2b$31$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa",
    ] {
        assert_eq!(verify(&passwords, "s3cret", Some(stored(text))).await, Ok(Verdict::Wrong), "{text:?}");
    }
}

#[tokio::test]
async fn new_passwords_are_judged_on_the_hashing_threads() {
    let passwords = passwords();
    let (username, email) = (Username::parse("ada").unwrap(), Email::parse("ada@example.com").unwrap());
    let judge = |text: &str| {
        let password = NewPassword::parse(text.to_owned(), 8).unwrap();
        passwords.judge(Policy::default(), password, username.clone(), email.clone())
    };
    judge("nib fjord waltz").await.unwrap();
    let refused = judge("password1").await.unwrap_err();
    assert!(matches!(refused, AdmitError::Refused(PasswordRefusal::Guessable { .. })), "{refused:?}");
}

/// Returns the time of a check of a wrong password.
async fn time_of_refusal(passwords: &Passwords, hash: Option<PasswordHash>) -> Duration {
    let began = passwords.shared.env.clock.instant();
    assert_eq!(verify(passwords, "wrong", hash).await, Ok(Verdict::Wrong));
    since(&passwords.shared.env.clock, began)
}

#[tokio::test]
async fn each_refusal_takes_the_time_of_the_slowest_stored_hash() {
    /// Several, because a busy machine may delay one check beyond the time of a refusal.
    const CHECKS_OF_THE_RIGHT_PASSWORD: usize = 5;
    let slow = "pbkdf2_sha256$2000000$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=";
    let passwords = passwords();
    let mut survey = passwords.survey();
    for hash in ["!unusable", "", "bcrypt$$2b$04$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa", slow]
    {
        survey.add(hash);
    }
    passwords.apply(survey).await.unwrap();

    let envelope = passwords.shared.envelope.time();
    assert!(envelope > Duration::from_millis(20), "{envelope:?}");
    let fast = passwords.hash(&chosen("s3cret")).await.unwrap();
    for hash in [None, Some(fast.clone()), Some(stored("md5$salt$5f4dcc3b5aa765d61d8327deb882cf99"))] {
        assert!(time_of_refusal(&passwords, hash).await >= envelope);
    }
    let mut times = Vec::new();
    for _ in 0..CHECKS_OF_THE_RIGHT_PASSWORD {
        let began = passwords.shared.env.clock.instant();
        verify(&passwords, "s3cret", Some(fast.clone())).await.unwrap();
        times.push(since(&passwords.shared.env.clock, began));
    }
    assert!(times.iter().any(|time| *time < envelope), "the right password does not wait: {times:?}");

    // Once no such hash is stored, no check waits.
    passwords.apply(passwords.survey()).await.unwrap();
    assert_eq!(passwords.shared.envelope.time(), Duration::ZERO);
    // A hash that no survey has found becomes known when it is checked.
    time_of_refusal(&passwords, Some(stored(slow))).await;
    assert!(passwords.shared.envelope.time() > Duration::from_millis(20));
}

#[test]
fn a_cost_out_of_bounds_fails_the_start() {
    for cost in [0, 3, 16, 31] {
        let options =
            PasswordOptions { cost, threads: 1, queue_length: 1, refusal_time_max: REFUSAL_TIME_MAX };
        assert_eq!(Passwords::start(options, env(1)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn zero_threads_and_a_queue_of_zero_are_raised_to_a_number_that_works() {
    let options =
        PasswordOptions { cost: COST, threads: 0, queue_length: 0, refusal_time_max: REFUSAL_TIME_MAX };
    let passwords = Passwords::start(options, env(1)).unwrap();
    assert_eq!(verify(&passwords, "s3cret", None).await, Ok(Verdict::Wrong));
}

#[test]
fn retry_after_follows_the_queued_work() {
    let (threads, queued) = (2, 64);
    // Each thread hashes half of the queue; one more cost doubles the time of a hash, 235 ms at cost 12.
    assert_eq!(time_to_drain(12, threads, queued), Duration::from_millis(235 * 32));
    assert_eq!(time_to_drain(13, threads, queued), Duration::from_millis(470 * 32));
    assert_eq!(time_to_drain(4, threads, queued), Duration::from_secs(1));
    assert_eq!(time_to_drain(15, 1, usize::MAX), RETRY_AFTER_MAX);
}

#[test]
fn debug_shows_no_hash() {
    let shown = format!("{:?}", passwords());
    assert_eq!(shown, "Passwords { cost: 4, .. }");
}
