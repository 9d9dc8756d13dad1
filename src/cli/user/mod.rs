//! `kairos-identity user`

mod action;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::Arc,
};

use clap::Args;

use self::action::Action;
use super::{Failure, arguments::user_failure, reason, signing, store};
use crate::{
    accounts::{AccountError, Administration, Mails, UserKey},
    callers::COMMAND_LINE,
    clock::Clock,
    config::Settings,
    domain::{AuditEvent, AuditKind, AuthToken, Origin, Timestamp},
    entropy::Entropy,
    sealing::SealingKey,
    store::{ManagedUser, Store, USERS_PAGE_MAX, UserFilter},
};

#[derive(Debug, Args)]
pub(super) struct User {
    #[command(subcommand)]
    action: Action,
}

/// Why a command failed.
struct CommandError {
    /// The reason for the audit trail, if the operation refused the command.
    refused: Option<&'static str>,
    failure: Failure,
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self { refused: None, failure }
    }
}

/// Returns the result of an operation on the user with this key, with its error as a [`CommandError`].
fn checked<T>(result: Result<T, AccountError>, key: &UserKey) -> Result<T, CommandError> {
    result.map_err(|error| CommandError { refused: error.reason(), failure: user_failure(key, error) })
}

impl User {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let store = store::open_current(settings).await?;
        let users = Administration::new(store.clone(), clock.clone());
        let kind = self.action.refusal();
        let Err(error) = act(self.action, &users, settings, &store, clock.now()).await else { return Ok(()) };
        if let Some(reason) = error.refused {
            let event = AuditEvent::new(clock.now(), kind, origin()).with_resource("user");
            record(&users, event.with_reason(reason)).await;
        }
        Err(error.failure)
    }
}

async fn act(
    action: Action,
    users: &Administration,
    settings: &Settings,
    store: &Store,
    now: Timestamp,
) -> Result<(), CommandError> {
    let read = |user: Option<AuthToken>, command: &str| {
        let event = AuditEvent::new(now, AuditKind::SensitiveRead, origin());
        record(users, event.with_user(user).with_resource(command))
    };
    match action {
        Action::List(filter) => {
            list(users, filter.at(now)).await?;
            read(None, "user list").await;
        }
        Action::Show { user } => {
            let found = checked(users.find_user(&user).await, &user)?;
            print_user(&found);
            read(Some(found.user.auth_token), "user show").await;
        }
        Action::Verify { user } => show(users.verify_user(&user, &origin()).await, &user)?,
        Action::Unverify { user } => {
            let mails = mails(settings, store).await?;
            show(users.unverify_user(&user, &mails, &origin()).await, &user)?;
        }
        Action::Disable { user } => {
            show(users.disable_user(&user, &notices(settings), &origin()).await, &user)?;
        }
        Action::Enable { user } => {
            let mails = mails(settings, store).await?;
            show(users.enable_user(&user, &mails, &origin()).await, &user)?;
        }
        Action::EndSessions { user } => {
            let revoked = checked(users.revoke_user_sessions(&user, &origin()).await, &user)?;
            println!("revoked {revoked} sessions");
        }
        Action::ResetPassword { user } => {
            let mails = mails(settings, store).await?;
            let mailed = checked(users.start_password_reset(&user, &mails, &origin()).await, &user)?;
            println!("the service will mail a link to {}", mailed.email.as_str());
        }
        Action::Unlock { user } => {
            let had_failures = checked(users.unlock_user(&user, &origin()).await, &user)?;
            println!("{}", if had_failures { "unlocked" } else { "there was nothing to unlock" });
        }
        Action::Delete { user, yes } => delete(users, &notices(settings), &user, yes).await?,
    }
    Ok(())
}

/// Records an event of a command. If that fails, the command does not: its operator has access to the
/// database itself.
pub(super) async fn record(users: &Administration, event: AuditEvent) {
    if let Err(error) = users.record_command(event).await {
        eprintln!("warning: not recorded in the audit trail: {}", reason(error));
    }
}

/// Returns the origin of the commands for the audit trail.
pub(super) fn origin() -> Origin {
    Origin::local(COMMAND_LINE)
}

/// Constructs [`Mails`], which writes mails into the outbox. The running service finds them there within
/// `mail.poll-interval`, since this process cannot notify it.
///
/// Fails if the sealing key is not the key of the service, which could not decrypt the tokens of these mails.
async fn mails(settings: &Settings, store: &Store) -> Result<Mails, Failure> {
    let (keys, sealing_key) = signing::standalone_signing_keys(settings, store.clone())?;
    keys.check().await.map_err(reason)?;
    Ok(signing::mails(settings, sealing_key, &Entropy::system(), Arc::default()))
}

/// Constructs [`Mails`] for mails without links. They contain no secret, so the sealing key of the service is
/// not needed.
fn notices(settings: &Settings) -> Mails {
    let entropy = Entropy::system();
    signing::mails(settings, Arc::new(SealingKey::ephemeral(&entropy)), &entropy, Arc::default())
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
            if super::check_write(line)? {
                return Ok(());
            }
        }
    }
    super::check_write(output.flush()).map(|_| ())
}

/// Prints the user with this key, or fails as the operation did.
fn show(result: Result<ManagedUser, AccountError>, key: &UserKey) -> Result<(), CommandError> {
    print_user(&checked(result, key)?);
    Ok(())
}

fn print_user(ManagedUser { user, disabled_at }: &ManagedUser) {
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

async fn delete(
    users: &Administration,
    mails: &Mails,
    key: &UserKey,
    is_confirmed: bool,
) -> Result<(), CommandError> {
    let user = checked(users.find_user(key).await, key)?;
    print_user(&user);
    if !is_confirmed && !confirm()? {
        return Err("nothing was deleted".to_owned().into());
    }
    // By auth_token, which never changes: an email or username may belong to another user by now.
    let key = UserKey::AuthToken(user.user.auth_token);
    checked(users.delete_user(&key, mails, &origin()).await, &key)?;
    println!("deleted");
    Ok(())
}

fn confirm() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err("nothing was deleted: standard input is not a terminal; confirm with --yes".to_owned());
    }
    eprint!("Delete this user permanently? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(reason)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
