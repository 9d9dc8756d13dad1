//! The load generator and what it needs: many users, and a server that answers without a store.
//!
//! `scripts/bench` drives it. By hand: `cargo bench --bench load -- --help`.

mod echo;
mod generate;
mod measure;
mod seed;
mod tokens;

use clap::{Parser, Subcommand};

/// As in the service, so that the limit is measured alike.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Given by `cargo bench`; means nothing here
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a migrated database with users whose tokens `run` draws
    Seed(seed::Seed),
    /// Serve `ResolveToken` from a constant, with the service's accept loop and without its layers: the limit
    Echo(echo::Echo),
    /// Call a service and print what came of it, as JSON
    Run(generate::Run),
    /// Print the `auth_token` of a user
    Token {
        /// Their number, from 0
        user: u64,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Seed(seed) => seed.run().await,
            Command::Echo(echo) => echo.run().await,
            Command::Run(run) => run.run().await,
            Command::Token { user } => {
                println!("{}", tokens::auth_token(user));
                Ok(())
            }
        }
    })
}
