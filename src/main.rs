//! Runs the command of the command line. Exit codes: 0 for success; 1 for a failure, with its reason on one
//! line of standard error; 2 for an invalid command line, such as a malformed value of a flag.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    kairos_identity::cli::run()
}
