//! `kairos-identity user`

mod action;
mod output;

use std::sync::Arc;

use clap::Args;

use self::{
    action::{Action, UserArgument},
    output::{confirm_deletion, print_user, print_users},
};
use super::{
    Failure,
    arguments::user_failure,
    command_events::{CommandTrail, origin, record},
    mails,
    output::{after_change, print, print_change, print_error},
    printable::field,
    reason,
    signing::{self, IfKeyLost},
    store,
};
use crate::{
    accounts::{AccountError, Administration, Mails, UserKey},
    clock::Clock,
    config::Settings,
    domain::{AuditEvent, AuditKind},
    entropy::Entropy,
    sealing::SealingKeys,
    store::{ManagedUser, Store},
};

#[derive(Debug, Args)]
pub(super) struct User {
    #[command(subcommand)]
    action: Action,
}

/// Why a command failed.
struct CommandError {
    /// The reason for the audit trail, if an operation was refused or failed.
    reason: Option<&'static str>,
    failure: Failure,
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self { reason: None, failure }
    }
}

/// Returns the result of an operation on the user with this key, with its error as a [`CommandError`].
fn checked<T>(result: Result<T, AccountError>, key: &UserKey) -> Result<T, CommandError> {
    result.map_err(|error| CommandError {
        reason: Some(error.audit_reason()),
        failure: user_failure(key, error),
    })
}

impl User {
    /// Runs the command, and records it unless its operation has.
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let store = store::open_usable(settings).await?;
        let users = Administration::new(store.clone(), clock.clone());
        let action = &self.action;
        let (command, refusal, unchanged) = (action.command(), action.refusal(), action.unchanged());
        let (at, origin, named) = (clock.now(), origin(), action.named_auth_token());
        let trail = CommandTrail { at, origin: origin.clone(), command, refusal, named };
        let done = perform(self.action, &users, settings, &store, &trail).await;
        if let (Ok(()), false, Some(unchanged)) = (&done, origin.note.is_recorded(), unchanged) {
            print_error(format_args!("nothing was changed: {unchanged}"))?;
        }
        trail.end(&users, done.as_ref().err().and_then(|error| error.reason)).await;
        done.map_err(|error| error.failure)
    }
}

/// Performs the action and prints its result.
async fn perform(
    action: Action,
    users: &Administration,
    settings: &Settings,
    store: &Store,
    trail: &CommandTrail,
) -> Result<(), CommandError> {
    let origin = &trail.origin;
    match action {
        Action::List { filter, format } => {
            let printed = print_users(users, filter.at(trail.at), format).await;
            let read = AuditEvent::new(trail.at, AuditKind::SensitiveRead, origin.clone());
            record(users, read.with_resource(trail.command)).await;
            printed?;
        }
        Action::Show(UserArgument { user }) => {
            let found = checked(users.find_user(&user).await, &user)?;
            origin.note.set_user(found.user.auth_token);
            print_user(&found)?;
        }
        Action::Verify(UserArgument { user }) => show(users.verify_user(&user, origin).await, &user)?,
        Action::Unverify(UserArgument { user }) => {
            let mails = link_mails(settings, store).await?;
            show(users.unverify_user(&user, &mails, origin).await, &user)?;
        }
        Action::Disable(UserArgument { user }) => {
            show(users.disable_user(&user, &notice_mails(settings), origin).await, &user)?;
        }
        Action::Enable(UserArgument { user }) => {
            let mails = link_mails(settings, store).await?;
            show(users.enable_user(&user, &mails, origin).await, &user)?;
        }
        Action::EndSessions(UserArgument { user }) => {
            let revoked = checked(users.revoke_user_sessions(&user, origin).await, &user)?;
            print_change(format_args!("revoked {revoked} session{}", if revoked == 1 { "" } else { "s" }))?;
        }
        Action::ResetPassword(UserArgument { user }) => {
            let mails = link_mails(settings, store).await?;
            let mailed = checked(users.start_password_reset(&user, &mails, origin).await, &user)?;
            print_change(format_args!("the service will mail a link to {}", field(mailed.email.as_str())))?;
        }
        Action::Unlock(UserArgument { user }) => {
            let had_failures = checked(users.unlock_user(&user, origin).await, &user)?;
            if had_failures {
                print_change("unlocked")?;
            } else {
                print("there was nothing to unlock")?;
            }
        }
        Action::Delete { user: UserArgument { user }, yes } => {
            delete(users, &notice_mails(settings), &user, yes, trail).await?;
        }
    }
    Ok(())
}

/// Constructs [`Mails`] for mails with links. The running service finds the mails in the outbox within
/// `mail.poll-interval`, since this process cannot notify it.
///
/// Fails if the sealing key is not the key of the service, which could not decrypt the tokens of these mails.
async fn link_mails(settings: &Settings, store: &Store) -> Result<Mails, Failure> {
    let (keys, sealing_keys) =
        signing::standalone_signing_keys(settings, store.clone(), IfKeyLost::Fail).await?;
    keys.check().await.map_err(reason)?;
    Ok(mails::mails(settings, sealing_keys, &Entropy::system(), Arc::default()))
}

/// Constructs [`Mails`] for mails without links. They contain no secret, so the sealing key of the service is
/// not needed.
fn notice_mails(settings: &Settings) -> Mails {
    let entropy = Entropy::system();
    mails::mails(settings, Arc::new(SealingKeys::ephemeral(&entropy)), &entropy, Arc::default())
}

/// Prints the user with this key after a change, or fails as the change did.
fn show(result: Result<ManagedUser, AccountError>, key: &UserKey) -> Result<(), CommandError> {
    Ok(after_change(print_user(&checked(result, key)?))?)
}

/// Prints the user, asks for confirmation unless it was given, and deletes the user.
async fn delete(
    users: &Administration,
    mails: &Mails,
    key: &UserKey,
    is_confirmed: bool,
    trail: &CommandTrail,
) -> Result<(), CommandError> {
    let user = checked(users.find_user(key).await, key)?;
    trail.origin.note.set_user(user.user.auth_token);
    print_user(&user)?;
    if !is_confirmed {
        // Recorded before the question, which the operator may leave without an answer, and with an origin of
        // its own: the deletion leaves another event.
        let read = AuditEvent::new(trail.at, AuditKind::SensitiveRead, origin());
        record(users, read.with_user(Some(user.user.auth_token)).with_resource(trail.command)).await;
        let answer = confirm_deletion();
        if !matches!(answer, Ok(true)) {
            trail.origin.note.set_recorded();
            answer?;
            return Err("nothing was deleted".to_owned().into());
        }
    }
    // By auth_token, which never changes: an email or username may belong to another user by now.
    let key = UserKey::AuthToken(user.user.auth_token);
    checked(users.delete_user(&key, mails, &trail.origin).await, &key)?;
    print_change("deleted")?;
    Ok(())
}
