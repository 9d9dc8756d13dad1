//! Parses the command line, runs one command, and tells by the exit code how it went: 0, 1 for a failure with its reason
//! on one line, 2 for a command line that is none.

use std::process::ExitCode;

use clap::Parser;
use kairos_identity::cli::Cli;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
