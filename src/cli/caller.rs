//! `kairos-identity caller`

use clap::{Args, Subcommand};

use super::{
    Failure,
    output::{print, print_error},
};
use crate::{
    callers::{ServiceToken, check_name},
    entropy::Entropy,
};

#[derive(Debug, Args)]
pub(super) struct Caller {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a service token: prints the token to standard output, and its entry for the callers file to
    /// standard error
    ///
    /// The entry can be appended to the file as it is: kairos-identity caller token NAME 2>> callers.toml
    ///
    /// The token is printed only once and is stored nowhere. To replace a token, add the new hash to the
    /// callers file, give the caller the new token, and then remove the old hash.
    Token {
        /// The name of the caller in the callers file
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

fn parse_name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.to_owned())
}

impl Caller {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Action::Token { name } = self.action;
        let token = ServiceToken::from_random(Entropy::system().bytes());
        for line in [
            "",
            "# Append this entry to the callers file (docs/CALLERS.md), and give the token, which is on",
            &format!("# standard output, to {name}."),
            &format!("[{name}]"),
            &format!("token-hashes = [\"{}\"]", token.hash()),
            "methods = []   # such as \"IdentityService/ResolveToken\"",
            "user-fields = []   # such as \"username\"",
        ] {
            print_error(line)?;
        }
        print(token.expose())
    }
}
