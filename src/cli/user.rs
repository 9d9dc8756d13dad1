//! `kairos-identity user`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};

use super::{Failure, reason, store};
use crate::{
    accounts::{Administration, UserKey},
    callers::COMMAND_LINE,
    clock::Clock,
    config::Settings,
    domain::{self, AuthToken, Email, Origin, Username},
    store::USERS_PAGE_MAX,
};

#[derive(Debug, Args)]
pub(super) struct User {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all users in the order of their registration: auth_token, verified or not, time of registration, email,
    /// username, with tabs between them
    List,
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

impl User {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let users = Administration::new(store::open_current(settings).await?, Clock::system());
        match self.verb {
            Verb::List => list(&users).await,
            Verb::Show { user } => {
                show(&users.find_user(&key(&user)?).await.map_err(reason)?);
                Ok(())
            }
            Verb::Verify { user } => {
                show(&users.verify_user(&key(&user)?, &origin()).await.map_err(reason)?);
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

async fn list(users: &Administration) -> Result<(), Failure> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut last = None;
    loop {
        let page = users.list_users(last, USERS_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        last = Some(end.id);
        for user in &page {
            let verified = if user.is_verified { "verified" } else { "unverified" };
            let (email, username) = (user.email.as_str(), user.username.as_str());
            let line =
                writeln!(output, "{}\t{verified}\t{}\t{email}\t{username}", user.auth_token, user.created_at);
            if super::was_closed(line)? {
                return Ok(());
            }
        }
    }
    super::was_closed(output.flush()).map(|_| ())
}

fn show(user: &domain::User) {
    println!("auth_token   {}", user.auth_token);
    println!("username     {}", user.username.as_str());
    println!("email        {}", user.email.as_str());
    println!("is_verified  {}", user.is_verified);
    println!("created_at   {}", user.created_at);
    println!("updated_at   {}", user.updated_at);
}

async fn delete(users: &Administration, key: &UserKey, is_sure: bool) -> Result<(), Failure> {
    let user = users.find_user(key).await.map_err(reason)?;
    show(&user);
    if !is_sure && !confirm()? {
        return Err("nothing was deleted".to_owned());
    }
    // By what never changes: the name might be another's by now.
    users.delete_user(&UserKey::AuthToken(user.auth_token), &origin()).await.map_err(reason)?;
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
