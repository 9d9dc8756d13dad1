//! Random sequences of valid and invalid calls, compared with a model of password changes. In the model a
//! password changes only with the current password or with the latest mailed reset link. After each call
//! every stored hash must match the model.
//!
//! `KAIROS_MODEL_SEQUENCES=100000 scripts/test --release model -- --nocapture` runs 100,000 sequences and
//! prints the seed; `KAIROS_MODEL_SEED` repeats a run.

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

/// Number of sequences in the test suite, on each engine.
const SEQUENCES_IN_SUITE: usize = 100;

/// Number of calls of a sequence.
const CALLS: usize = 8;

/// Maximum number of sequences for one group of users.
const SEQUENCES_PER_GROUP_MAX: usize = 50;

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
    name: String,
    count: usize,
}

/// The user whose password a call has changed, as an index into `Group::users`, and the new password.
type Changed = Option<(usize, String)>;

fn acting<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // A value that is not valid in a header is not sent.
    if let Ok(credentials) = format!("Bearer {token}").parse() {
        request.metadata_mut().insert("authorization", credentials);
    }
    request
}

/// Returns the response if the call succeeded. A refused call is fine; an internal or unknown error is not.
fn accepted<T>(answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(refusal) => {
            assert!(!matches!(refusal.code(), Code::Internal | Code::Unknown), "{refusal:?}");
            None
        }
    }
}

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

    fn below(&self, end: usize) -> usize {
        usize::try_from(u64::from_le_bytes(self.entropy.bytes()) % end as u64).unwrap()
    }

    fn pick<'a>(&self, from: &'a [String]) -> Option<&'a String> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }

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

    /// Makes one random call and records its result in the model. Returns the password change, if the call
    /// succeeded in one.
    async fn one_call(&mut self) -> Changed {
        match self.below(18) {
            0..=3 => self.log_in().await,
            4 | 5 => return self.change_password().await,
            6 | 7 => return self.reset_password().await,
            8 => self.request_reset().await,
            9 => self.open_other_links().await,
            10 => self.request_other_links().await,
            11 => self.refresh().await,
            12 => self.revoke_sessions().await,
            13 => self.delete_account().await,
            14 => self.register_again().await,
            15 => self.rename().await,
            _ => self.call_admin().await,
        }
        None
    }

    async fn log_in(&mut self) {
        let of = self.random_user();
        let password = self.random_password(of);
        let is_right = password == self.users[of].password;
        let login = LoginRequest { email: self.users[of].email.clone(), password };
        if let Some(answer) = accepted(self.identity.login(login).await) {
            assert!(is_right, "a wrong password logs in");
            self.record_tokens(of, answer.into_inner().tokens.unwrap());
        }
    }

    fn record_tokens(&mut self, of: usize, tokens: SessionTokens) {
        self.users[of].access.push(tokens.access_token);
        self.users[of].refresh.push(tokens.refresh_token);
    }

    async fn change_password(&mut self) -> Changed {
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or_else(|| self.random_user()));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let new_password = self.next("Lantern-quartz");
        let change = ChangePasswordRequest { current_password, new_password: new_password.clone() };
        accepted(self.accounts.change_password(acting(&token, change)).await)?;
        assert!(is_right, "a password is changed without the current one");
        let owner = owner?;
        // A changed password voids the reset link.
        self.users[owner].live_reset_link = None;
        Some((owner, new_password))
    }

    async fn reset_password(&mut self) -> Changed {
        let token = self.random_token(|user| &user.reset_links);
        let of = self.users.iter().position(|user| user.live_reset_link.as_ref() == Some(&token));
        let new_password = self.next("Lantern-quartz");
        let reset = ResetPasswordRequest { token, new_password: new_password.clone() };
        accepted(self.accounts.reset_password(reset).await)?;
        let of = of.expect("a password is reset without the latest mailed link");
        self.users[of].live_reset_link = None;
        Some((of, new_password))
    }

    async fn request_reset(&mut self) {
        let of = self.random_user();
        let email = self.users[of].email.clone();
        let request = RequestPasswordResetRequest { email, return_mail_token: true };
        if let Some(answer) = accepted(self.accounts.request_password_reset(request).await) {
            let link = answer.into_inner().mail_token;
            if !link.is_empty() {
                self.users[of].reset_links.push(link.clone());
                self.users[of].live_reset_link = Some(link);
            }
        }
    }

    async fn open_other_links(&mut self) {
        if self.below(2) == 0 {
            let token = self.random_token(|user| &user.verify_links);
            accepted(self.identity.verify_email(VerifyEmailRequest { token }).await);
            return;
        }
        let token = self.random_token(|user| &user.change_links);
        let of = self.users.iter().position(|user| user.change_links.contains(&token));
        let confirm = ConfirmEmailChangeRequest { token };
        if let Some(answer) = accepted(self.accounts.confirm_email_change(confirm).await) {
            let of = of.expect("an email is changed without its link");
            let user = answer.into_inner().user.unwrap();
            assert_eq!(user.auth_token, self.users[of].auth_token);
            self.users[of].email = user.email;
            self.users[of].live_reset_link = None;
        }
    }

    async fn request_other_links(&mut self) {
        let of = self.random_user();
        if self.below(2) == 0 {
            let email = self.users[of].email.clone();
            let request = ResendVerificationEmailRequest { email, return_mail_token: true };
            if let Some(answer) = accepted(self.identity.resend_verification_email(request).await) {
                self.users[of].verify_links.push(answer.into_inner().mail_token);
            }
            return;
        }
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or(of));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let new_email = format!("{}@example.com", self.next("mail"));
        let request = RequestEmailChangeRequest { current_password, new_email, return_mail_token: true };
        if let Some(answer) = accepted(self.accounts.request_email_change(acting(&token, request)).await) {
            assert!(is_right, "an email change is requested without the password");
            self.users[owner.unwrap()].change_links.push(answer.into_inner().mail_token);
        }
    }

    async fn refresh(&mut self) {
        let refresh_token = self.random_token(|user| &user.refresh);
        let of = self.users.iter().position(|user| user.refresh.contains(&refresh_token));
        let refresh = RefreshSessionRequest { refresh_token };
        if let Some(answer) = accepted(self.sessions.refresh_session(refresh).await) {
            self.record_tokens(
                of.expect("a session is refreshed without its token"),
                answer.into_inner().tokens.unwrap(),
            );
        }
    }

    async fn revoke_sessions(&mut self) {
        if self.below(2) == 0 {
            let refresh_token = self.random_token(|user| &user.refresh);
            accepted(self.sessions.logout(LogoutRequest { refresh_token }).await);
        } else {
            let token = self.random_token(|user| &user.access);
            let keep_current = self.below(2) == 0;
            let revoke = acting(&token, RevokeAllSessionsRequest { keep_current });
            accepted(self.sessions.revoke_all_sessions(revoke).await);
        }
    }

    async fn delete_account(&mut self) {
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or(0));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let request = acting(&token, DeleteAccountRequest { current_password });
        if accepted(self.accounts.delete_account(request).await).is_some() {
            assert!(is_right, "an account is deleted without its password");
            self.users[owner.unwrap()] = self.new_user().await;
        }
    }

    async fn register_again(&mut self) {
        let email = self.users[self.random_user()].email.to_uppercase();
        let register = RegisterRequest {
            username: self.next("name"),
            email,
            password: self.next("Lantern-quartz"),
            request_id: String::new(),
            return_mail_token: true,
        };
        assert!(accepted(self.identity.register(register).await).is_none(), "an email is registered twice");
    }

    async fn rename(&mut self) {
        let token = self.random_token(|user| &user.access);
        let rename = UpdateAccountRequest { username: self.next("name"), update_mask: None };
        accepted(self.accounts.update_account(acting(&token, rename)).await);
    }

    async fn call_admin(&mut self) {
        let of = self.random_user();
        let auth_token = self.users[of].auth_token.clone();
        match self.below(6) {
            0 => {
                accepted(
                    self.admin.disable_user(DisableUserRequest { auth_token: auth_token.clone() }).await,
                );
                self.users[of].live_reset_link = None;
                if self.below(2) == 0 {
                    accepted(self.admin.enable_user(EnableUserRequest { auth_token }).await);
                }
            }
            1 => drop(accepted(self.admin.enable_user(EnableUserRequest { auth_token }).await)),
            2 => {
                let is_verified = Some(self.below(2) == 0);
                accepted(self.admin.set_verified(SetVerifiedRequest { auth_token, is_verified }).await);
            }
            3 => drop(accepted(self.admin.unlock_user(UnlockUserRequest { auth_token }).await)),
            4 => {
                accepted(self.admin.revoke_user_sessions(RevokeUserSessionsRequest { auth_token }).await);
            }
            _ => {
                let start = StartPasswordResetRequest { auth_token };
                // The new link, which this test does not see, replaces the other links.
                if accepted(self.admin.start_password_reset(start).await).is_some() {
                    self.users[of].live_reset_link = None;
                }
            }
        }
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
    async fn no_sequence_of_calls_changes_a_password_without_the_current_one_or_the_mailed_link(engine: Engine) {
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
