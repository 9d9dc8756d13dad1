//! The load generator, with a command that fills a database with users, and a reference server without a
//! store.
//!
//! `scripts/bench` runs it. To run it by hand: `cargo bench --bench load -- --help`.

mod echo;
mod generate;
mod measure;
mod seed;
mod tokens;

use clap::{Parser, Subcommand};

/// The allocator of the service, so that the reference server is measured under the same conditions.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Passed by `cargo bench`; ignored
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a migrated database with the users that `run` requests
    Seed(seed::Seed),
    /// Serve a constant user for `ResolveToken`, with the service's accept loop and without its layers (the
    /// reference)
    Echo(echo::Echo),
    /// Call a service and print the measurement as JSON
    Run(generate::Run),
    /// Print the `auth_token` of a user
    Token {
        /// Number of the user, from 0
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
