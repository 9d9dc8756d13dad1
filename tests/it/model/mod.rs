//! Random sequences of valid and invalid calls, compared with a model of password changes. In the model a
//! password changes only with the current password or with the latest mailed reset link. After each call
//! every stored hash must match the model.
//!
//! `KAIROS_MODEL_SEQUENCES=100000 scripts/test --release model -- --nocapture` runs 100,000 sequences and
//! prints the seed; `KAIROS_MODEL_SEED` repeats a run.

mod calls;

use kairos_identity::{
    domain::Email,
    entropy::Entropy,
    proto::{
        RegisterRequest, VerifyEmailRequest, account_service_client::AccountServiceClient,
        admin_service_client::AdminServiceClient, identity_service_client::IdentityServiceClient,
        session_service_client::SessionServiceClient,
    },
    store::Store,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    store::open,
    support::{
        server::TestServer,
        tools::{model_seed, model_sequences},
    },
};

/// Number of sequences in the test suite, on each engine.
const SEQUENCES_IN_SUITE: usize = 100;

/// Number of calls of a sequence.
const CALLS: usize = 8;

/// Maximum number of sequences for one group of users.
const SEQUENCES_PER_GROUP_MAX: usize = 50;

/// Number of groups that make calls at the same time.
const WORKERS: usize = 4;

/// A user in the model, with every token and link that the user has received.
#[derive(Debug, Clone, Default)]
struct User {
    auth_token: String,
    email: String,
    password: String,
    hash: String,
    old_passwords: Vec<String>,
    access: Vec<String>,
    refresh: Vec<String>,
    verify_links: Vec<String>,
    change_links: Vec<String>,
    reset_links: Vec<String>,
    /// The only reset link that is valid now.
    live_reset_link: Option<String>,
}

/// A group of users, and the clients that call for them.
struct Group {
    users: Vec<User>,
    entropy: Entropy,
    store: Store,
    identity: IdentityServiceClient<Channel>,
    sessions: SessionServiceClient<Channel>,
    accounts: AccountServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    /// Part of every email, username and password of the group, so that no other group has the same.
    name: String,
    /// How many texts [`Group::next`] has returned.
    count: usize,
}

/// The user whose password a call has changed, as an index into `Group::users`, and the new password.
type Changed = Option<(usize, String)>;

impl Group {
    async fn new(server: &TestServer, store: Store, name: String, seed: u64) -> Self {
        let channel = server.channel().await;
        let mut group = Self {
            users: Vec::new(),
            entropy: Entropy::seeded(seed),
            store,
            identity: IdentityServiceClient::new(channel.clone()),
            sessions: SessionServiceClient::new(channel.clone()),
            accounts: AccountServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
            name,
            count: 0,
        };
        for _ in 0..3 {
            let user = group.new_user().await;
            group.users.push(user);
        }
        group
    }

    /// Returns a random number from 0 to `end`, without `end`.
    fn below(&self, end: usize) -> usize {
        usize::try_from(u64::from_le_bytes(self.entropy.bytes()) % end as u64).unwrap()
    }

    fn pick<'a>(&self, from: &'a [String]) -> Option<&'a String> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }

    /// Returns a new email, username or password.
    fn next(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{}-{kind}-{}", self.name, self.count)
    }

    async fn new_user(&mut self) -> User {
        let (email, password) = (format!("{}@example.com", self.next("mail")), self.next("Lantern-quartz"));
        let register = RegisterRequest {
            username: self.next("name"),
            email: email.clone(),
            password: password.clone(),
            request_id: String::new(),
            return_mail_token: true,
        };
        let registered = self.identity.register(register).await.unwrap().into_inner();
        let token = registered.mail_token;
        self.identity.verify_email(VerifyEmailRequest { token: token.clone() }).await.unwrap();
        let auth_token = registered.user.unwrap().auth_token;
        let hash = self.hash_of(&email).await;
        User { auth_token, email, password, hash, verify_links: vec![token], ..User::default() }
    }

    async fn hash_of(&self, email: &str) -> String {
        let found = self.store.find_credentials(&Email::parse(email).unwrap()).await.unwrap();
        found.unwrap_or_else(|| panic!("no user has the email {email}")).password.expose().to_owned()
    }

    fn random_user(&self) -> usize {
        self.below(self.users.len())
    }

    /// Returns a random token of a random user. The kind that `kind` selects has the highest probability.
    fn random_token(&self, kind: impl Fn(&User) -> &Vec<String>) -> String {
        let user = &self.users[self.random_user()];
        let kinds: [&Vec<String>; 6] = [
            &user.access,
            &user.refresh,
            &user.verify_links,
            &user.change_links,
            &user.reset_links,
            &user.old_passwords,
        ];
        let of = match self.below(10) {
            number if number < kinds.len() => kinds[number],
            _ => kind(user),
        };
        let latest = of.last().filter(|_| self.below(2) == 0);
        latest.or_else(|| self.pick(of)).unwrap_or(&user.auth_token).clone()
    }

    /// Returns a password to try for the user `of`: the right one in at least half of the cases.
    fn random_password(&self, of: usize) -> String {
        let (user, other) = (&self.users[of], &self.users[self.random_user()]);
        match self.below(8) {
            0 => other.password.clone(),
            1 => self.pick(&user.old_passwords).unwrap_or(&user.auth_token).clone(),
            2 => user.hash.clone(),
            3 => user.reset_links.last().unwrap_or(&user.email).clone(),
            _ => user.password.clone(),
        }
    }

    fn owner_of_access(&self, token: &str) -> Option<usize> {
        self.users.iter().position(|user| user.access.iter().any(|other| other == token))
    }

    /// Makes one call, and asserts that afterwards every stored hash matches the model.
    async fn step(&mut self) {
        let changed = self.one_call().await;
        for of in 0..self.users.len() {
            let hash = self.hash_of(&self.users[of].email).await;
            let user = &mut self.users[of];
            match &changed {
                Some((changed_user, password)) if *changed_user == of => {
                    assert_ne!(hash, user.hash, "the password was not changed");
                    let old = std::mem::replace(&mut user.password, password.clone());
                    user.old_passwords.push(old);
                    user.hash = hash;
                }
                _ => assert_eq!(hash, user.hash, "a password changed without permission"),
            }
        }
    }
}

on_both_engines! {
    async fn no_calls_change_a_password_without_the_current_one_or_a_mailed_link(engine: Engine) {
        let (sequences, seed) = (model_sequences(SEQUENCES_IN_SUITE), model_seed());
        println!("{engine:?}: {sequences} sequences, KAIROS_MODEL_SEED={seed}");
        let server = TestServer::builder(engine)
            .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
            .with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "100000000")
            .with_env("KAIROS_IDENTITY_VERIFICATION_RESENDS_MAX", "1000")
            .with_env("KAIROS_IDENTITY_LOG_LEVEL", "warn,kairos_identity::cli=info")
            .start()
            .await;
        let store = open(server.database_url());
        let server = std::sync::Arc::new(server);
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let (server, store) = (std::sync::Arc::clone(&server), store.clone());
            workers.spawn(async move {
                let mut left = sequences.div_ceil(WORKERS);
                for group in 0.. {
                    let sequences_now = left.min(SEQUENCES_PER_GROUP_MAX);
                    if sequences_now == 0 {
                        break;
                    }
                    left -= sequences_now;
                    let name = format!("w{worker}c{group}");
                    let seed = seed.wrapping_add((group * WORKERS + worker) as u64);
                    let mut group = Group::new(&server, store.clone(), name, seed).await;
                    for _ in 0..sequences_now * CALLS {
                        group.step().await;
                    }
                }
            });
        }
        workers.join_all().await;
    }
}
