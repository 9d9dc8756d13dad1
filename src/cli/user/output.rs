//! What `kairos-identity user` prints, and the confirmation that it asks for.

use std::io::{self, BufRead, IsTerminal};

use crate::{
    accounts::Administration,
    cli::{
        Failure,
        list::{Field, FormatFlag, List},
        output::{Lines, ask},
        printable::field,
        reason,
    },
    store::{ManagedUser, USERS_PAGE_MAX, UserFilter},
};

/// Prints all matching users, which are read one page at a time.
pub(super) async fn print_users(
    users: &Administration,
    filter: UserFilter,
    format: FormatFlag,
) -> Result<(), Failure> {
    let mut list = List::new(format, ["auth_token", "state", "created_at", "email", "username"]);
    let mut after = None;
    loop {
        let page = users.list_users(filter.clone(), after, USERS_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        after = Some(end.user.id);
        for ManagedUser { user, disabled_at } in &page {
            let state = match (disabled_at, user.is_verified) {
                (Some(_), _) => "disabled",
                (None, true) => "verified",
                (None, false) => "unverified",
            };
            let (email, username) = (Field::text(user.email.as_str()), Field::text(user.username.as_str()));
            let (token, created_at) = (Field::text(user.auth_token), Field::text(user.created_at));
            if list.add([token, Field::text(state), created_at, email, username])? {
                return Ok(());
            }
        }
    }
    list.finish()
}

/// Prints the fields of one user, one per line.
pub(super) fn print_user(ManagedUser { user, disabled_at }: &ManagedUser) -> Result<(), Failure> {
    let mut output = Lines::new();
    output.line(format_args!("auth_token   {}", user.auth_token))?;
    output.line(format_args!("username     {}", field(user.username.as_str())))?;
    output.line(format_args!("email        {}", field(user.email.as_str())))?;
    output.line(format_args!("is_verified  {}", user.is_verified))?;
    output.line(format_args!("created_at   {}", user.created_at))?;
    output.line(format_args!("updated_at   {}", user.updated_at))?;
    if let Some(at) = disabled_at {
        output.line(format_args!("disabled_at  {at}"))?;
    }
    output.finish()
}

/// Asks on the terminal whether to delete the user. True if the answer is yes.
///
/// # Errors
/// If standard input is not a terminal, or cannot be read.
pub(super) fn confirm_deletion() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err("nothing was deleted: standard input is not a terminal; confirm with --yes".to_owned());
    }
    ask("Delete this user permanently? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(reason)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
