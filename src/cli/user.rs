//! `kairos-identity user`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{Failure, audit::moment, reason, signing, store};
use crate::{
    accounts::{Administration, Mails, UserKey},
    callers::COMMAND_LINE,
    clock::Clock,
    config::Settings,
    domain::{AuthToken, Email, Origin, Timestamp, Username},
    entropy::Entropy,
    store::{ManagedUser, Store, USERS_PAGE_MAX, UserFilter},
};

#[derive(Debug, Args)]
pub(super) struct User {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List users in the order of their registration: auth_token; verified, unverified or disabled; time of registration; email;
    /// username; with tabs between them
    List(Filter),
    /// Show one user
    Show {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Mark a user's email as verified, without a link
    Verify {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Mark a user's email as not verified: ends their sessions and links, and mails them a new link
    Unverify {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Keep a user out: ends their sessions, voids their links and refuses their logins
    Disable {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Let a user in again who was disabled
    Enable {
        /// The user's auth_token, email or username
        user: String,
    },
    /// End all sessions of a user
    EndSessions {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Mail a user the link to choose a new password with
    ResetPassword {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Forget a user's wrong passwords, so that they need not wait to log in
    Unlock {
        /// The user's auth_token, email or username
        user: String,
    },
    /// Delete a user with everything that belongs to them; this cannot be undone
    Delete {
        /// The user's auth_token, email or username
        user: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Only users whose email is verified
    #[arg(long, conflicts_with = "unverified")]
    verified: bool,
    /// Only users whose email is not verified
    #[arg(long)]
    unverified: bool,
    /// Only users who are disabled
    #[arg(long)]
    disabled: bool,
    /// Only users who registered from then on: a time such as 2026-11-24T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only users who registered before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only users with this in their email or username, in any case
    #[arg(long)]
    text: Option<String>,
}

impl Filter {
    fn parse(&self, now: Timestamp) -> Result<UserFilter, Failure> {
        Ok(UserFilter {
            is_verified: (self.verified || self.unverified).then_some(self.verified),
            is_disabled: self.disabled.then_some(true),
            created_since: moment("--since", self.since.as_deref(), now)?,
            created_before: moment("--until", self.until.as_deref(), now)?,
            text: self.text.clone(),
        })
    }
}

impl User {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let now = clock.now();
        let store = store::open_current(settings).await?;
        let users = Administration::new(store.clone(), clock);
        match self.verb {
            Verb::List(filter) => list(&users, filter.parse(now)?).await,
            Verb::Show { user } => {
                show(&users.find_user(&key(&user)?).await.map_err(reason)?);
                Ok(())
            }
            Verb::Verify { user } => {
                show(&users.verify_user(&key(&user)?, &origin()).await.map_err(reason)?);
                Ok(())
            }
            Verb::Unverify { user } => {
                let mails = mails(settings, &store).await?;
                show(&users.unverify_user(&key(&user)?, &mails, &origin()).await.map_err(reason)?);
                Ok(())
            }
            Verb::Disable { user } => {
                show(&users.disable_user(&key(&user)?, &origin()).await.map_err(reason)?);
                Ok(())
            }
            Verb::Enable { user } => {
                let mails = mails(settings, &store).await?;
                show(&users.enable_user(&key(&user)?, &mails, &origin()).await.map_err(reason)?);
                Ok(())
            }
            Verb::EndSessions { user } => {
                let ended = users.revoke_user_sessions(&key(&user)?, &origin()).await.map_err(reason)?;
                println!("ended {ended} sessions");
                Ok(())
            }
            Verb::ResetPassword { user } => {
                let mails = mails(settings, &store).await?;
                let user = users.start_password_reset(&key(&user)?, &mails, &origin()).await;
                println!("the service mails a link to {}", user.map_err(reason)?.email.as_str());
                Ok(())
            }
            Verb::Unlock { user } => {
                let had_failures = users.unlock_user(&key(&user)?, &origin()).await.map_err(reason)?;
                println!("{}", if had_failures { "unlocked" } else { "there was nothing to unlock" });
                Ok(())
            }
            Verb::Delete { user, yes } => delete(&users, &key(&user)?, yes).await,
        }
    }
}

/// Who acts, as the audit trail has it.
fn origin() -> Origin {
    Origin::local(COMMAND_LINE)
}

/// Mails that the running service finds in its outbox (mail.poll-interval): its bell is not heard from here.
///
/// A key that is not the service's would seal what it cannot open.
async fn mails(settings: &Settings, store: &Store) -> Result<Mails, Failure> {
    let (keys, sealing_key) = signing::signing_keys_alone(settings, store.clone())?;
    keys.check().await.map_err(reason)?;
    Ok(signing::mails(settings, sealing_key, &Entropy::system(), Arc::default()))
}

async fn list(users: &Administration, filter: UserFilter) -> Result<(), Failure> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut last = None;
    loop {
        let page = users.list_users(filter.clone(), last, USERS_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        last = Some(end.user.id);
        for ManagedUser { user, disabled_at } in &page {
            let state = match (disabled_at, user.is_verified) {
                (Some(_), _) => "disabled",
                (None, true) => "verified",
                (None, false) => "unverified",
            };
            let (email, username) = (user.email.as_str(), user.username.as_str());
            let line =
                writeln!(output, "{}\t{state}\t{}\t{email}\t{username}", user.auth_token, user.created_at);
            if super::was_closed(line)? {
                return Ok(());
            }
        }
    }
    super::was_closed(output.flush()).map(|_| ())
}

fn show(ManagedUser { user, disabled_at }: &ManagedUser) {
    println!("auth_token   {}", user.auth_token);
    println!("username     {}", user.username.as_str());
    println!("email        {}", user.email.as_str());
    println!("is_verified  {}", user.is_verified);
    println!("created_at   {}", user.created_at);
    println!("updated_at   {}", user.updated_at);
    if let Some(at) = disabled_at {
        println!("disabled_at  {at}");
    }
}

async fn delete(users: &Administration, key: &UserKey, is_sure: bool) -> Result<(), Failure> {
    let user = users.find_user(key).await.map_err(reason)?;
    show(&user);
    if !is_sure && !confirm()? {
        return Err("nothing was deleted".to_owned());
    }
    // By what never changes: the name might be another's by now.
    users.delete_user(&UserKey::AuthToken(user.user.auth_token), &origin()).await.map_err(reason)?;
    println!("deleted");
    Ok(())
}

fn confirm() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err("nothing was deleted: there is no terminal to ask on; give --yes".to_owned());
    }
    eprint!("Delete this user for ever? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(reason)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// An email has an @, which a username never has; an `auth_token` is a UUID.
pub(super) fn key(text: &str) -> Result<UserKey, Failure> {
    if text.contains('@') {
        return Email::parse(text).map(UserKey::Email).map_err(|rule| format!("the email {rule}"));
    }
    match AuthToken::parse(text) {
        Ok(token) => Ok(UserKey::AuthToken(token)),
        Err(_) => Username::parse(text).map(UserKey::Username).map_err(|rule| format!("the username {rule}")),
    }
}
