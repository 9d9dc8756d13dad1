//! What `kairos-identity user` prints, and the confirmation that it asks for.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::{
    accounts::Administration,
    cli::{Failure, check_write, reason},
    store::{ManagedUser, USERS_PAGE_MAX, UserFilter},
};

/// Prints all matching users, which are read one page at a time.
pub(super) async fn print_users(users: &Administration, filter: UserFilter) -> Result<(), Failure> {
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
            if check_write(line)? {
                return Ok(());
            }
        }
    }
    check_write(output.flush()).map(|_| ())
}

/// Prints the fields of one user, one per line.
pub(super) fn print_user(ManagedUser { user, disabled_at }: &ManagedUser) {
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

/// Asks on the terminal whether to delete the user. True if the answer is yes.
///
/// # Errors
/// If standard input is not a terminal, or cannot be read.
pub(super) fn confirm_deletion() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err("nothing was deleted: standard input is not a terminal; confirm with --yes".to_owned());
    }
    eprint!("Delete this user permanently? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(reason)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
