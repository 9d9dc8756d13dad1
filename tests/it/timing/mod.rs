//! The duration of a call must not reveal whether an account exists (Welch's t-test, as in dudect: Reparaz et
//! al., DATE 2017).
//!
//! `KAIROS_TIMING_SAMPLES=20000 scripts/test --release timing -- --test-threads 1 --nocapture` takes 20,000
//! samples of each of the two classes at the lowest hash cost, at which differences in the other work show
//! most, and prints a line of figures. Without the variable the tests take few samples, at a hash cost so
//! high that a login without its hash is detected all the same.

mod statistics;

use std::time::{Duration, Instant};

use kairos_identity::{
    domain::PasswordHash,
    entropy::Entropy,
    proto::{
        LoginRequest, RegisterRequest, RequestPasswordResetRequest, ResendVerificationEmailRequest,
        account_service_client::AccountServiceClient, identity_service_client::IdentityServiceClient,
    },
};
use tonic::{Code, transport::Channel};

use self::statistics::Figures;
use crate::{
    store::{NOW, World, event},
    support::{people::registration, server::TestServer, tools::timing_samples},
};

/// Limit of Welch's t. A larger value counts as a difference. It occurs by chance once in 150,000
/// comparisons.
const T_MAX: f64 = 4.5;

/// Number of samples of each class without `KAIROS_TIMING_SAMPLES`.
const SAMPLES_IN_SUITE: usize = 150;

/// Hash cost without `KAIROS_TIMING_SAMPLES`: such a hash takes 16 times as long as one of [`COST_LOWEST`].
const COST_IN_SUITE: &str = "8";

/// The lowest hash cost.
const COST_LOWEST: &str = "4";

/// Number of wrong passwords per account in a comparison: fewer than the configured limit of 100, so that no
/// login is throttled.
const GUESSES: usize = 90;

/// One hash of each scheme that an import stores, each with another work than a hash of [`COST_IN_SUITE`]. No
/// password of the tests matches any of them.
const IMPORTED: [&str; 6] = [
    "bcrypt$$2b$09$CZqd7vbM4OFg6.S7zWtru.wCVYBAmZ8JNXEq35Yr.dVkhsHRpynsa",
    "pbkdf2_sha256$60000$salt$AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw=",
    "pbkdf2_sha1$20000$salt$AwoRGB8mLTQ7QklQV15lbHN6gYg=",
    "scrypt$4096$salt$8$1$AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4/wYNFBsiKTA3PkVMU1phaG92fYSLkpmgp661vA==",
    "argon2$argon2id$v=19$m=8192,t=1,p=1$c29tZXNhbHQ$AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw",
    "md5$salt$5f4dcc3b5aa765d61d8327deb882cf99",
];

/// Number of samples of each scheme without `KAIROS_TIMING_SAMPLES`.
const SCHEME_SAMPLES_IN_SUITE: usize = 60;

/// Maximum number of samples of each scheme, because each sample takes the time of the slowest scheme.
const SCHEME_SAMPLES_MAX: usize = 2_000;

/// Number of requested links per account in a comparison: half of the configured limit of 1,000, so that each
/// request creates a link.
const RESENDS: usize = 500;

type Client = IdentityServiceClient<Channel>;

/// State of the account that a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// No account has this email.
    Unknown,
    /// An account has this email and has verified it.
    Verified,
    /// An account has this email and has not verified it.
    Unverified,
}

impl Account {
    /// Returns email number `number` of this kind; all emails have the same length.
    fn email(self, number: usize) -> String {
        let kind = match self {
            Self::Unknown => "unknown",
            Self::Verified => "checked",
            Self::Unverified => "pending",
        };
        format!("{kind}{number:06}@example.com")
    }
}

struct Scene {
    world: World,
    server: TestServer,
    samples: usize,
}

impl Scene {
    /// Starts a service with high limits for logins and resends, and creates `accounts` accounts of each
    /// kind.
    async fn new(engine: crate::support::engine::Engine, kinds: &[Account], accounts: usize) -> Self {
        let (samples, cost) =
            timing_samples().map_or((SAMPLES_IN_SUITE, COST_IN_SUITE), |samples| (samples, COST_LOWEST));
        let world = World::new(engine).await;
        let server = TestServer::on_url(world.database.url().to_owned())
            .with_env("KAIROS_IDENTITY_PASSWORD_COST", cost)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
            .with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "100000000")
            .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000")
            .with_env("KAIROS_IDENTITY_LOG_LEVEL", "warn,kairos_identity::cli=info")
            .start()
            .await;
        server.unverified_user("ada").await;
        let hash = world.database.rows("SELECT password AS value FROM core_user").remove(0);
        for kind in kinds {
            for number in 0..accounts {
                let (mut registration, _) = world.registration(&format!("{kind:?}{number}"));
                registration.email = crate::store::email(&kind.email(number));
                registration.mail.recipient = registration.email.clone();
                registration.password = PasswordHash::from_stored(hash.clone());
                let user = match world.store.register(registration).await.unwrap() {
                    kairos_identity::store::Registered::New(user) => user,
                    kairos_identity::store::Registered::Known(_) => unreachable!(),
                };
                if *kind == Account::Verified {
                    world.store.mark_verified(user.id, event(NOW)).await.unwrap();
                }
            }
        }
        Self { world, server, samples }
    }

    /// Creates a verified account with this email and this stored hash, as an import does.
    async fn add_imported(&self, name: &str, email: &str, hash: &str) {
        let (mut registration, _) = self.world.registration(name);
        registration.email = crate::store::email(email);
        registration.mail.recipient = registration.email.clone();
        registration.password = PasswordHash::from_stored(hash.to_owned());
        let kairos_identity::store::Registered::New(user) =
            self.world.store.register(registration).await.unwrap()
        else {
            unreachable!("a registration without a request id is new")
        };
        self.world.store.mark_verified(user.id, event(NOW)).await.unwrap();
    }

    /// Takes samples of both kinds in random order, and asserts that their times do not differ.
    async fn compare(
        self,
        name: &str,
        kinds: [Account; 2],
        mut call: impl AsyncFnMut(&mut Client, Account, usize) -> Duration,
    ) {
        let mut client = self.server.client().await;
        let random = Entropy::seeded(11);
        let (mut times, mut taken) = ([Vec::new(), Vec::new()], [0; 2]);
        for _ in 0..WARM_UP {
            call(&mut client, kinds[0], 0).await;
            call(&mut client, kinds[1], 0).await;
        }
        while taken.iter().any(|taken| *taken < self.samples) {
            let [byte] = random.bytes::<1>();
            let class = usize::from(byte & 1);
            if taken[class] < self.samples {
                times[class].push(call(&mut client, kinds[class], taken[class]).await.as_secs_f64() * 1e6);
                taken[class] += 1;
            }
        }
        let figures = Figures::of(&times);
        println!(
            "| {name} | {kinds:?} | {:?} | {} | {:.0} | {:.0} | {:+.1} | {:.3} | {:+.2} |",
            self.world.database.engine(),
            self.samples,
            figures.medians[0],
            figures.medians[1],
            figures.medians[1] - figures.medians[0],
            figures.auc,
            figures.t
        );
        assert!(figures.t.abs() < T_MAX, "{name}, {kinds:?}: t = {:.2}", figures.t);
    }
}

/// Number of calls of each kind before the samples, after which connections, caches and prepared statements
/// are ready.
const WARM_UP: usize = 5;

/// Measures a login that is refused with `code`.
async fn time_of_login(client: &mut Client, email: String, code: Code) -> Duration {
    let request = LoginRequest { email, password: "not the password".to_owned() };
    let began = Instant::now();
    let refusal = client.login(request).await.unwrap_err();
    let time = began.elapsed();
    assert_eq!(refusal.code(), code, "{refusal:?}");
    time
}

/// Measures a call of `ResendVerificationEmail`.
async fn time_of_resend(client: &mut Client, email: String) -> Duration {
    let began = Instant::now();
    client
        .resend_verification_email(ResendVerificationEmailRequest { email, return_mail_token: false })
        .await
        .unwrap();
    began.elapsed()
}

/// Returns how many accounts the samples need if each account is used for `each` of them.
fn accounts_for(samples: Option<usize>, each: usize) -> usize {
    samples.unwrap_or(SAMPLES_IN_SUITE) / each + 2
}

/// Compares refused logins of unknown emails with those of one kind of account, with at most [`GUESSES`] per
/// account.
async fn compare_logins(engine: crate::support::engine::Engine, kind: Account) {
    let scene = Scene::new(engine, &[kind], accounts_for(timing_samples(), GUESSES)).await;
    scene
        .compare("Login", [Account::Unknown, kind], async |client, kind, number| {
            time_of_login(client, kind.email(number / GUESSES), Code::Unauthenticated).await
        })
        .await;
}

on_both_engines! {
    async fn a_login_of_an_unknown_email_takes_as_long_as_that_of_a_verified_one(engine: Engine) {
        compare_logins(engine, Account::Verified).await;
    }

    async fn a_login_of_an_unknown_email_takes_as_long_as_that_of_an_unverified_one(engine: Engine) {
        compare_logins(engine, Account::Unverified).await;
    }

    async fn a_login_takes_as_long_for_an_unknown_email_as_for_each_imported_scheme(engine: Engine) {
        let samples = timing_samples().unwrap_or(SCHEME_SAMPLES_IN_SUITE).min(SCHEME_SAMPLES_MAX);
        let scene = Scene::new(engine, &[], 0).await;
        // The first class has no account.
        let email = |class: usize, number: usize| format!("class{class:02}{:06}@example.com", number / GUESSES);
        for (scheme, hash) in IMPORTED.iter().enumerate() {
            for number in 0..=samples / GUESSES + 1 {
                let (name, email) = (format!("scheme{scheme}number{number}"), email(scheme + 1, number * GUESSES));
                scene.add_imported(&name, &email, hash).await;
            }
        }
        let mut client = scene.server.client().await;
        let mut times = vec![Vec::new(); IMPORTED.len() + 1];
        for (class, _) in times.iter().enumerate() {
            for _ in 0..WARM_UP {
                time_of_login(&mut client, email(class, 0), Code::Unauthenticated).await;
            }
        }
        let random = Entropy::seeded(12);
        while times.iter().any(|times| times.len() < samples) {
            let [byte] = random.bytes::<1>();
            let class = usize::from(byte) % times.len();
            if times[class].len() < samples {
                let email = email(class, times[class].len() + WARM_UP);
                times[class].push(time_of_login(&mut client, email, Code::Unauthenticated).await.as_secs_f64() * 1e6);
            }
        }
        for (scheme, of_scheme) in IMPORTED.iter().zip(&times[1..]) {
            let figures = Figures::of(&[times[0].clone(), of_scheme.clone()]);
            let scheme = scheme.split('$').next().unwrap();
            println!("Login, unknown and {scheme}, {engine:?}, {samples} samples: {:?} us, t = {:+.2}", figures.medians, figures.t);
            assert!(figures.t.abs() < T_MAX, "{scheme}: {:?} us, t = {:.2}", figures.medians, figures.t);
        }
    }

    async fn a_refused_login_takes_as_long_as_the_slowest_stored_hash_up_to_a_limit(engine: Engine) {
        let scene = Scene::new(engine, &[], 0).await;
        let slow = "pbkdf2_sha256$2000000$salt$nIZvV0yN967Z2wcZspFbwGIDBjBGDuItJzNpQ+4TsY0=";
        scene.add_imported("slow", "slow@example.com", slow).await;
        let limit = |limit| [("KAIROS_IDENTITY_PASSWORD_COST", "4"), ("KAIROS_IDENTITY_PASSWORD_REFUSAL_TIME_MAX", limit)];
        // Compares the shortest of several logins, taken in turn: other work on the machine disturbs both.
        let shortest = async |server: &TestServer, is_enough: fn(Duration, Duration) -> bool| {
            let mut client = server.client().await;
            let mut shortest = [Duration::MAX; 2];
            for _ in 0..10 {
                for (shortest, email) in shortest.iter_mut().zip(["unknown@example.com", "slow@example.com"]) {
                    let time = time_of_login(&mut client, email.to_owned(), Code::Unauthenticated).await;
                    *shortest = time.min(*shortest);
                }
                if is_enough(shortest[0], shortest[1]) {
                    return;
                }
            }
            panic!("an unknown email: {:?}, one with the slow hash: {:?}", shortest[0], shortest[1]);
        };

        // No login has tried the slow hash before the first one with an unknown email.
        let waits = scene.server.second_instance_with(&limit("5s")).await;
        shortest(&waits, |unknown, known| unknown * 2 > known).await;
        let does_not_wait = scene.server.second_instance_with(&limit("0s")).await;
        shortest(&does_not_wait, |unknown, known| unknown * 2 < known).await;
    }

    async fn a_throttled_login_takes_as_long_for_an_unknown_email(engine: Engine) {
        let kinds = [Account::Unknown, Account::Verified];
        let scene = Scene::new(engine, &kinds[1..], 1).await;
        let mut client = scene.server.client().await;
        for kind in kinds {
            for _ in 0..100 {
                time_of_login(&mut client, kind.email(0), Code::Unauthenticated).await;
            }
        }
        scene.compare("Throttled login", kinds, async |client, kind, _| {
            time_of_login(client, kind.email(0), Code::ResourceExhausted).await
        }).await;
    }

    async fn a_registration_with_a_weak_password_takes_as_long_for_an_unknown_email(engine: Engine) {
        let kinds = [Account::Unknown, Account::Verified];
        let scene = Scene::new(engine, &kinds[1..], 1).await;
        scene.compare("Register, refused for its password", kinds, async |client, kind, number| {
            let username = format!("User {number}");
            let request = RegisterRequest { username, email: kind.email(0), password: "password".into(), ..registration("x") };
            let began = Instant::now();
            assert_eq!(client.register(request).await.unwrap_err().code(), Code::InvalidArgument);
            began.elapsed()
        }).await;
    }

    async fn a_resend_takes_as_long_for_an_unknown_email_as_for_an_unverified_one(engine: Engine) {
        let kinds = [Account::Unknown, Account::Unverified];
        let scene = Scene::new(engine, &kinds[1..], accounts_for(timing_samples(), RESENDS)).await;
        scene.compare("ResendVerificationEmail", kinds, async |client, kind, number| {
            time_of_resend(client, kind.email(number / RESENDS)).await
        }).await;
    }

    async fn a_resend_takes_as_long_for_an_unknown_email_as_for_a_verified_one(engine: Engine) {
        let kinds = [Account::Unknown, Account::Verified];
        let scene = Scene::new(engine, &kinds[1..], accounts_for(timing_samples(), RESENDS)).await;
        scene.compare("ResendVerificationEmail", kinds, async |client, kind, number| {
            time_of_resend(client, kind.email(number / RESENDS)).await
        }).await;
    }

    async fn a_reset_takes_as_long_for_an_unknown_email_as_for_a_verified_one(engine: Engine) {
        let kinds = [Account::Unknown, Account::Verified];
        let scene = Scene::new(engine, &kinds[1..], accounts_for(timing_samples(), RESENDS)).await;
        let mut accounts = AccountServiceClient::new(scene.server.channel().await);
        scene.compare("RequestPasswordReset", kinds, async |_, kind, number| {
            let request = RequestPasswordResetRequest { email: kind.email(number / RESENDS), return_mail_token: false };
            let began = Instant::now();
            accounts.request_password_reset(request).await.unwrap();
            began.elapsed()
        }).await;
    }

    /// Work that continues after a response must not change the duration of the next call either.
    async fn a_login_right_after_a_resend_takes_as_long_for_an_unknown_email(engine: Engine) {
        let kinds = [Account::Unknown, Account::Unverified];
        let scene = Scene::new(engine, &kinds[1..], accounts_for(timing_samples(), RESENDS)).await;
        scene.compare("Login right after ResendVerificationEmail", kinds, async |client, kind, number| {
            time_of_resend(client, kind.email(number / RESENDS)).await;
            let unknown = format!("stranger{number:06}@example.com");
            time_of_login(client, unknown, Code::Unauthenticated).await
        }).await;
    }
}
