//! Parses the command line and runs one command. Exit codes: 0 for success; 1 for a failure, with its reason
//! on one line of standard error; 2 for an invalid command line.

use std::process::ExitCode;

use clap::Parser;
use kairos_identity::{cli::Cli, telemetry};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            telemetry::report_failure(&reason);
            ExitCode::FAILURE
        }
    }
}
