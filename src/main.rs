//! Parses the command line and runs one command. Exit codes: 0 for success; 1 for a failure, with its reason
//! on one line of standard error; 2 for an invalid command line, such as a malformed value of a flag.

use std::process::ExitCode;

use clap::Parser;
use kairos_identity::{cli::Cli, telemetry};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::report_failure(&error.to_string());
            error.exit_code().into()
        }
    }
}
