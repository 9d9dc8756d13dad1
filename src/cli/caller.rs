//! `kairos-identity caller`

use clap::{Args, Subcommand};

use super::Failure;
use crate::{
    callers::{ServiceToken, check_name},
    entropy::Entropy,
};

#[derive(Debug, Args)]
pub(super) struct Caller {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a service token: the token goes to standard output, its hash for the file of callers to standard error
    ///
    /// The token is shown this once and kept nowhere. To replace one, add the new hash beside the old one, give the caller
    /// the new token, and take the old hash out.
    Token {
        /// The caller's name in the file
        name: String,
    },
}

impl Caller {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Verb::Token { name } = self.verb;
        check_name(&name).map_err(|rule| format!("caller {name}: {rule}"))?;
        let token = ServiceToken::from_random(Entropy::system().bytes());
        eprintln!(
            "Put this into the file of callers (docs/CALLERS.md), and give {name} the token on standard output:"
        );
        eprintln!(
            "\n[{name}]\ntoken-hashes = [\"{}\"]\nmethods = []   # such as \"IdentityService/ResolveToken\"\n\
             user-fields = []   # such as \"username\"\n",
            token.hash()
        );
        println!("{}", token.expose());
        Ok(())
    }
}
