//! Random sequences of calls, legal and not, beside a model that knows who may change a password: with the current one, or with the latest link
//! that was mailed for it. After each call every stored hash is what the model says.
//!
//! `KAIROS_MODEL_SEQUENCES=100000 scripts/test --release model -- --nocapture` tries as many, and prints the seed; `KAIROS_MODEL_SEED` repeats them.

use kairos_identity::{
    domain::Email,
    entropy::Entropy,
    proto::{
        ChangePasswordRequest, ConfirmEmailChangeRequest, DeleteAccountRequest, DisableUserRequest,
        EnableUserRequest, LoginRequest, LogoutRequest, RefreshSessionRequest, RegisterRequest,
        RequestEmailChangeRequest, RequestPasswordResetRequest, ResendVerificationEmailRequest,
        ResetPasswordRequest, RevokeAllSessionsRequest, RevokeUserSessionsRequest, SessionTokens,
        SetVerifiedRequest, StartPasswordResetRequest, UnlockUserRequest, UpdateAccountRequest,
        VerifyEmailRequest, account_service_client::AccountServiceClient,
        admin_service_client::AdminServiceClient, identity_service_client::IdentityServiceClient,
        session_service_client::SessionServiceClient,
    },
    store::Store,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    store::open,
    support::{
        server::TestServer,
        tools::{model_seed, model_sequences},
    },
};

/// Sequences in the suite, on each engine.
const FEW: usize = 100;

/// Calls of a sequence.
const CALLS: usize = 8;

/// The most sequences that one crowd lives through.
const LIFETIME: usize = 50;

const WORKERS: usize = 4;

/// Somebody, as the model knows them, with all that they were ever given.
#[derive(Debug, Clone, Default)]
struct Person {
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
    /// The one link that may choose a password for them.
    live_reset_link: Option<String>,
}

/// Some people, and what calls them.
struct Crowd {
    people: Vec<Person>,
    chance: Entropy,
    store: Store,
    identity: IdentityServiceClient<Channel>,
    sessions: SessionServiceClient<Channel>,
    accounts: AccountServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    name: String,
    count: usize,
}

/// A password that a call says it has changed, and whose.
type Changed = Option<(usize, String)>;

fn acting<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // What is no header is not sent.
    if let Ok(credentials) = format!("Bearer {token}").parse() {
        request.metadata_mut().insert("authorization", credentials);
    }
    request
}

/// What broke, if anything did: a refusal is as it should be.
fn refused<T>(answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(refusal) => {
            assert!(!matches!(refusal.code(), Code::Internal | Code::Unknown), "{refusal:?}");
            None
        }
    }
}

impl Crowd {
    async fn new(server: &TestServer, store: Store, name: String, seed: u64) -> Self {
        let channel = server.channel().await;
        let mut crowd = Self {
            people: Vec::new(),
            chance: Entropy::seeded(seed),
            store,
            identity: IdentityServiceClient::new(channel.clone()),
            sessions: SessionServiceClient::new(channel.clone()),
            accounts: AccountServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
            name,
            count: 0,
        };
        for _ in 0..3 {
            let person = crowd.somebody_new().await;
            crowd.people.push(person);
        }
        crowd
    }

    fn below(&self, end: usize) -> usize {
        usize::try_from(u64::from_le_bytes(self.chance.bytes()) % end as u64).unwrap()
    }

    fn pick<'a>(&self, from: &'a [String]) -> Option<&'a String> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }

    fn next(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{}-{kind}-{}", self.name, self.count)
    }

    async fn somebody_new(&mut self) -> Person {
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
        Person { auth_token, email, password, hash, verify_links: vec![token], ..Person::default() }
    }

    async fn hash_of(&self, email: &str) -> String {
        let found = self.store.find_credentials(&Email::parse(email).unwrap()).await.unwrap();
        found.unwrap_or_else(|| panic!("{email} is gone")).password.expose().to_owned()
    }

    fn anybody(&self) -> usize {
        self.below(self.people.len())
    }

    /// Anything that somebody may try as a token: the right kind most often.
    fn some_token(&self, kind: impl Fn(&Person) -> &Vec<String>) -> String {
        let person = &self.people[self.anybody()];
        let kinds: [&Vec<String>; 6] = [
            &person.access,
            &person.refresh,
            &person.verify_links,
            &person.change_links,
            &person.reset_links,
            &person.old_passwords,
        ];
        let of = match self.below(10) {
            number if number < kinds.len() => kinds[number],
            _ => kind(person),
        };
        let latest = of.last().filter(|_| self.below(2) == 0);
        latest.or_else(|| self.pick(of)).unwrap_or(&person.auth_token).clone()
    }

    /// Anything that somebody may try as the password of `of`; the right one half of the time.
    fn some_password(&self, of: usize) -> String {
        let (person, other) = (&self.people[of], &self.people[self.anybody()]);
        match self.below(8) {
            0 => other.password.clone(),
            1 => self.pick(&person.old_passwords).unwrap_or(&person.auth_token).clone(),
            2 => person.hash.clone(),
            3 => person.reset_links.last().unwrap_or(&person.email).clone(),
            _ => person.password.clone(),
        }
    }

    fn owner_of_access(&self, token: &str) -> Option<usize> {
        self.people.iter().position(|person| person.access.iter().any(|other| other == token))
    }

    /// Makes one call, and tells the model of what it gave; gives the password that it says it has changed.
    async fn one_call(&mut self) -> Changed {
        match self.below(18) {
            0..=3 => self.log_in().await,
            4 | 5 => return self.change_password().await,
            6 | 7 => return self.reset_password().await,
            8 => self.ask_for_reset().await,
            9 => self.follow_other_links().await,
            10 => self.ask_for_other_links().await,
            11 => self.refresh().await,
            12 => self.end_sessions().await,
            13 => self.leave().await,
            14 => self.register_again().await,
            15 => self.rename().await,
            _ => self.administrate().await,
        }
        None
    }

    async fn log_in(&mut self) {
        let of = self.anybody();
        let password = self.some_password(of);
        let is_right = password == self.people[of].password;
        let login = LoginRequest { email: self.people[of].email.clone(), password };
        if let Some(answer) = refused(self.identity.login(login).await) {
            assert!(is_right, "a wrong password logs in");
            self.keep(of, answer.into_inner().tokens.unwrap());
        }
    }

    fn keep(&mut self, of: usize, tokens: SessionTokens) {
        self.people[of].access.push(tokens.access_token);
        self.people[of].refresh.push(tokens.refresh_token);
    }

    async fn change_password(&mut self) -> Changed {
        let token = self.some_token(|person| &person.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.some_password(owner.unwrap_or_else(|| self.anybody()));
        let is_right = owner.is_some_and(|owner| self.people[owner].password == current_password);
        let new_password = self.next("Lantern-quartz");
        let change = ChangePasswordRequest { current_password, new_password: new_password.clone() };
        refused(self.accounts.change_password(acting(&token, change)).await)?;
        assert!(is_right, "a password is changed without the current one");
        let owner = owner?;
        // It voids the link.
        self.people[owner].live_reset_link = None;
        Some((owner, new_password))
    }

    async fn reset_password(&mut self) -> Changed {
        let token = self.some_token(|person| &person.reset_links);
        let of = self.people.iter().position(|person| person.live_reset_link.as_ref() == Some(&token));
        let new_password = self.next("Lantern-quartz");
        let reset = ResetPasswordRequest { token, new_password: new_password.clone() };
        refused(self.accounts.reset_password(reset).await)?;
        let of = of.expect("a password is reset without the latest mailed link");
        self.people[of].live_reset_link = None;
        Some((of, new_password))
    }

    async fn ask_for_reset(&mut self) {
        let of = self.anybody();
        let email = self.people[of].email.clone();
        let ask = RequestPasswordResetRequest { email, return_mail_token: true };
        if let Some(answer) = refused(self.accounts.request_password_reset(ask).await) {
            let link = answer.into_inner().mail_token;
            if !link.is_empty() {
                self.people[of].reset_links.push(link.clone());
                self.people[of].live_reset_link = Some(link);
            }
        }
    }

    async fn follow_other_links(&mut self) {
        if self.below(2) == 0 {
            let token = self.some_token(|person| &person.verify_links);
            refused(self.identity.verify_email(VerifyEmailRequest { token }).await);
            return;
        }
        let token = self.some_token(|person| &person.change_links);
        let of = self.people.iter().position(|person| person.change_links.contains(&token));
        let confirm = ConfirmEmailChangeRequest { token };
        if let Some(answer) = refused(self.accounts.confirm_email_change(confirm).await) {
            let of = of.expect("an address is changed without a link for it");
            let user = answer.into_inner().user.unwrap();
            assert_eq!(user.auth_token, self.people[of].auth_token);
            self.people[of].email = user.email;
            self.people[of].live_reset_link = None;
        }
    }

    async fn ask_for_other_links(&mut self) {
        let of = self.anybody();
        if self.below(2) == 0 {
            let email = self.people[of].email.clone();
            let ask = ResendVerificationEmailRequest { email, return_mail_token: true };
            if let Some(answer) = refused(self.identity.resend_verification_email(ask).await) {
                self.people[of].verify_links.push(answer.into_inner().mail_token);
            }
            return;
        }
        let token = self.some_token(|person| &person.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.some_password(owner.unwrap_or(of));
        let is_right = owner.is_some_and(|owner| self.people[owner].password == current_password);
        let new_email = format!("{}@example.com", self.next("mail"));
        let ask = RequestEmailChangeRequest { current_password, new_email, return_mail_token: true };
        if let Some(answer) = refused(self.accounts.request_email_change(acting(&token, ask)).await) {
            assert!(is_right, "an address is changed without the password");
            self.people[owner.unwrap()].change_links.push(answer.into_inner().mail_token);
        }
    }

    async fn refresh(&mut self) {
        let refresh_token = self.some_token(|person| &person.refresh);
        let of = self.people.iter().position(|person| person.refresh.contains(&refresh_token));
        let refresh = RefreshSessionRequest { refresh_token };
        if let Some(answer) = refused(self.sessions.refresh_session(refresh).await) {
            self.keep(of.expect("a session goes on without its token"), answer.into_inner().tokens.unwrap());
        }
    }

    async fn end_sessions(&mut self) {
        if self.below(2) == 0 {
            let refresh_token = self.some_token(|person| &person.refresh);
            refused(self.sessions.logout(LogoutRequest { refresh_token }).await);
        } else {
            let token = self.some_token(|person| &person.access);
            let keep_current = self.below(2) == 0;
            let revoke = acting(&token, RevokeAllSessionsRequest { keep_current });
            refused(self.sessions.revoke_all_sessions(revoke).await);
        }
    }

    async fn leave(&mut self) {
        let token = self.some_token(|person| &person.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.some_password(owner.unwrap_or(0));
        let is_right = owner.is_some_and(|owner| self.people[owner].password == current_password);
        let leave = acting(&token, DeleteAccountRequest { current_password });
        if refused(self.accounts.delete_account(leave).await).is_some() {
            assert!(is_right, "an account is deleted without its password");
            self.people[owner.unwrap()] = self.somebody_new().await;
        }
    }

    async fn register_again(&mut self) {
        let email = self.people[self.anybody()].email.to_uppercase();
        let register = RegisterRequest {
            username: self.next("name"),
            email,
            password: self.next("Lantern-quartz"),
            request_id: String::new(),
            return_mail_token: true,
        };
        assert!(refused(self.identity.register(register).await).is_none(), "an address is taken twice");
    }

    async fn rename(&mut self) {
        let token = self.some_token(|person| &person.access);
        let rename = UpdateAccountRequest { username: self.next("name"), update_mask: None };
        refused(self.accounts.update_account(acting(&token, rename)).await);
    }

    async fn administrate(&mut self) {
        let of = self.anybody();
        let auth_token = self.people[of].auth_token.clone();
        match self.below(6) {
            0 => {
                refused(self.admin.disable_user(DisableUserRequest { auth_token: auth_token.clone() }).await);
                self.people[of].live_reset_link = None;
                if self.below(2) == 0 {
                    refused(self.admin.enable_user(EnableUserRequest { auth_token }).await);
                }
            }
            1 => drop(refused(self.admin.enable_user(EnableUserRequest { auth_token }).await)),
            2 => {
                let is_verified = Some(self.below(2) == 0);
                refused(self.admin.set_verified(SetVerifiedRequest { auth_token, is_verified }).await);
            }
            3 => drop(refused(self.admin.unlock_user(UnlockUserRequest { auth_token }).await)),
            4 => {
                refused(self.admin.revoke_user_sessions(RevokeUserSessionsRequest { auth_token }).await);
            }
            _ => {
                let start = StartPasswordResetRequest { auth_token };
                // The link that nobody here sees replaces the others.
                if refused(self.admin.start_password_reset(start).await).is_some() {
                    self.people[of].live_reset_link = None;
                }
            }
        }
    }

    /// One call, after which every hash is what the model says.
    async fn step(&mut self) {
        let changed = self.one_call().await;
        for of in 0..self.people.len() {
            let hash = self.hash_of(&self.people[of].email).await;
            let person = &mut self.people[of];
            match &changed {
                Some((whose, password)) if *whose == of => {
                    assert_ne!(hash, person.hash, "the password was not changed");
                    let old = std::mem::replace(&mut person.password, password.clone());
                    person.old_passwords.push(old);
                    person.hash = hash;
                }
                _ => assert_eq!(hash, person.hash, "a password was changed that nobody may change"),
            }
        }
    }
}

on_both_engines! {
    async fn no_sequence_of_calls_changes_a_password_without_the_current_one_or_the_mailed_link(engine: Engine) {
        let (sequences, seed) = (model_sequences(FEW), model_seed());
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
                for crowd in 0.. {
                    let lived = left.min(LIFETIME);
                    if lived == 0 {
                        break;
                    }
                    left -= lived;
                    let name = format!("w{worker}c{crowd}");
                    let seed = seed.wrapping_add((crowd * WORKERS + worker) as u64);
                    let mut crowd = Crowd::new(&server, store.clone(), name, seed).await;
                    for _ in 0..lived * CALLS {
                        crowd.step().await;
                    }
                }
            });
        }
        workers.join_all().await;
    }
}
