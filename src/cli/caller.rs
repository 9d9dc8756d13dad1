//! `kairos-identity caller`

use clap::{Args, Subcommand};

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
    pub(super) fn run(self) {
        let Action::Token { name } = self.action;
        let token = ServiceToken::from_random(Entropy::system().bytes());
        eprintln!(
            "Add this entry to the callers file (docs/CALLERS.md), and give the token, which is on standard output, to {name}:"
        );
        eprintln!(
            "\n[{name}]\ntoken-hashes = [\"{}\"]\nmethods = []   # such as \"IdentityService/ResolveToken\"\n\
             user-fields = []   # such as \"username\"\n",
            token.hash()
        );
        println!("{}", token.expose());
    }
}
