//! The same calls in the same order have the same answers on both engines.

use std::time::Duration;

use kairos_identity::{
    domain::{MailKind, MailToken, MailTokenPurpose, Timestamp, UserId},
    entropy::Entropy,
    store::{LinkOwner, NewMail, OutgoingMail, Registration, RetentionPeriods},
};

use super::{DAY, NOW, World, email, event, request_id};
use crate::support::engine::Engine;

const CALLS: usize = 400;
const NAMES: u8 = 6;

/// A call with all of its random arguments.
#[derive(Clone)]
enum Call {
    Register(Box<Registration>, MailToken),
    /// Uses the link with this number, if so many were created.
    Verify(usize),
    /// Replaces the link of the user with this number.
    Replace(u8, Box<NewMail>, MailToken),
    Claim,
    /// Ends the claim of a mail in one of three ways: sent, failed, or to be retried.
    Finish(u8),
    MarkVerified(u8),
    Delete(u8),
    FindAll,
    Purge,
}

const RETENTION: RetentionPeriods = RetentionPeriods {
    expired_tokens: DAY,
    finished_mails: DAY,
    request_ids: DAY,
    unverified_users: DAY,
    sessions: DAY,
    idle_sessions: DAY,
    audit_events: DAY,
};

struct Runner {
    world: World,
    tokens: Vec<MailToken>,
    claimed: Option<OutgoingMail>,
}

impl Runner {
    async fn new(engine: Engine) -> Self {
        Self { world: World::new(engine).await, tokens: Vec::new(), claimed: None }
    }

    /// Makes the call and returns the answer as text without row ids.
    async fn run(&mut self, call: Call, now: Timestamp) -> String {
        let store = &self.world.store;
        match call {
            Call::Register(registration, token) => {
                self.tokens.push(token);
                let abandoned_until = Some(now.minus(DAY));
                let at_now =
                    Registration { created_at: now, abandoned_until, event: event(now), ..*registration };
                comparable(store.register(at_now).await)
            }
            Call::Verify(number) => match self.tokens.get(number) {
                Some(token) => comparable(store.verify_email(token.digest(), event(now)).await),
                None => String::new(),
            },
            Call::Replace(name, mail, token) => {
                self.tokens.push(token);
                let (to, purpose) = (email(&address(name)), MailTokenPurpose::VerifyEmail);
                let owner = LinkOwner { email: &to, id: None };
                comparable(store.replace_link(owner, purpose, *mail, event(now)).await)
            }
            Call::Claim => {
                self.claimed = store.claim_due_mail(now, now.plus(Duration::from_mins(5))).await.unwrap();
                self.claimed
                    .as_ref()
                    .map_or_else(String::new, |mail| format!("{} {}", mail.recipient.as_str(), mail.attempts))
            }
            Call::Finish(how) => match (self.claimed.take(), how % 3) {
                (None, _) => String::new(),
                (Some(mail), 0) => comparable(store.mark_mail_sent(&mail, now).await),
                (Some(mail), 1) => comparable(store.mark_mail_failed(&mail, now, "550".into()).await),
                (Some(mail), _) => comparable(store.retry_mail(&mail, now, "451".into()).await),
            },
            Call::MarkVerified(name) => match self.find(name).await {
                Some(id) => comparable(store.mark_verified(id, event(now)).await),
                None => String::new(),
            },
            Call::Delete(name) => match self.find(name).await {
                Some(id) => comparable(store.delete_user(id, event(now)).await),
                None => String::new(),
            },
            Call::FindAll => {
                let mut answers = Vec::new();
                for name in 0..NAMES {
                    let user = store.find_user_by_email(&email(&address(name))).await.unwrap();
                    answers.push(user.map(|user| {
                        (
                            user.auth_token,
                            user.username.as_str().to_owned(),
                            user.is_verified,
                            user.created_at,
                            user.updated_at,
                        )
                    }));
                }
                format!("{answers:?} {:?}", self.world.counts())
            }
            Call::Purge => comparable(store.purge(RETENTION, event(now)).await),
        }
    }

    async fn find(&self, name: u8) -> Option<UserId> {
        self.world.store.find_user_by_email(&email(&address(name))).await.unwrap().map(|user| user.id)
    }
}

/// Returns an answer as text without the row id: a failed insert uses up an id on PostgreSQL only.
#[expect(clippy::needless_pass_by_value, reason = "an answer is used only here")]
fn comparable<T: std::fmt::Debug, E: std::fmt::Debug>(answer: Result<T, E>) -> String {
    let text = format!("{answer:?}");
    match (text.find("UserId("), text.find("auth_token")) {
        (Some(from), Some(to)) => format!("{}{}", &text[..from], &text[to..]),
        _ => text,
    }
}

fn address(name: u8) -> String {
    format!("user{}@example.com", name % NAMES)
}

fn draw(entropy: &Entropy, source: &World) -> Call {
    let [kind, a, b, c] = entropy.bytes();
    match kind % 16 {
        0..=4 => {
            let (mut registration, token) = source.registration(&format!("user{}", a % NAMES));
            registration.email = email(&address(b));
            registration.mail.recipient = registration.email.clone();
            registration.request_id = (c % 2 == 0).then(|| request_id(u128::from(c % 8)));
            Call::Register(Box::new(registration), token)
        }
        5 | 6 => Call::Verify(usize::from(a) % 40),
        7 | 8 => {
            let (mail, token) = source.mail_to(MailKind::VerifyEmail, &email(&address(a)));
            Call::Replace(a, Box::new(mail), token)
        }
        9 | 10 => Call::Claim,
        11 => Call::Finish(a),
        12 => Call::MarkVerified(a),
        13 => Call::Delete(a),
        14 => Call::FindAll,
        _ => Call::Purge,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_calls_have_the_same_answers() {
    let seed = u64::from_le_bytes(Entropy::system().bytes());
    println!("seed {seed}");
    let entropy = Entropy::seeded(seed);
    let (mut sqlite, mut postgres) = (Runner::new(Engine::Sqlite).await, Runner::new(Engine::Postgres).await);
    let mut now = NOW;
    for number in 0..CALLS {
        let call = draw(&entropy, &sqlite.world);
        now = now.plus(Duration::from_secs(u64::from(entropy.bytes::<1>()[0]) * 60));

        let answers = (sqlite.run(call.clone(), now).await, postgres.run(call, now).await);

        assert_eq!(answers.0, answers.1, "call {number} of seed {seed}");
    }
    assert_eq!(sqlite.run(Call::FindAll, now).await, postgres.run(Call::FindAll, now).await, "seed {seed}");
}
