//! Third-party programs that `scripts/setup test` installs, and the environment variables that make test runs
//! longer.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kairos_identity::entropy::Entropy;

/// Returns the root folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs grpcurl without TLS; `arguments` may begin with further flags.
pub fn grpcurl(arguments: &[&str]) -> Output {
    Command::new(tool("grpcurl")).arg("-plaintext").args(arguments).output().unwrap()
}

/// Runs a script of `tests/support` with the Python interpreter of the tests and waits for its end.
pub fn python(script: &str, arguments: &[&str]) -> Output {
    python_command(script).args(arguments).output().unwrap()
}

/// Returns the command of [`python`], not yet started.
pub fn python_command(script: &str) -> Command {
    let mut command = Command::new(python_path());
    command.arg(repository().join("tests/support").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Returns the path of the Python interpreter of the tests, which has Django and the packages of
/// `requirements.txt`.
pub fn python_path() -> PathBuf {
    tool("python")
}

/// Node.js. Debian 12 has release 18, in which the global `crypto` that jose uses must be enabled.
pub fn node() -> Command {
    let major = Command::new("node").args(["-p", "process.versions.node.split('.')[0]"]).output().unwrap();
    let mut node = Command::new("node");
    if String::from_utf8_lossy(&major.stdout).trim() == "18" {
        node.arg("--experimental-global-webcrypto");
    }
    node
}

/// Returns the path of a program or package in `.tools/node_modules`.
pub fn node_module(path: &str) -> PathBuf {
    installed(repository().join(".tools/node_modules").join(path))
}

/// Returns the path of a program in `.tools/venv/bin`.
pub fn tool(name: &str) -> PathBuf {
    installed(repository().join(".tools/venv/bin").join(name))
}

#[track_caller]
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `scripts/setup test`", path.display());
    path
}

/// Returns how long each attack runs: `KAIROS_ATTACK_SECONDS`, or 2 s.
pub fn attack_seconds() -> std::time::Duration {
    std::time::Duration::from_secs(env_value("KAIROS_ATTACK_SECONDS").unwrap_or(2))
}

/// Number of concurrent calls in a race. It is four times the number of PostgreSQL connections of an instance
/// (`database.pool-size`), so some calls run while others wait.
pub const RACING_CALLS: usize = 64;

/// Returns how often a race is repeated: `KAIROS_RACE_ROUNDS`, or `default`.
pub fn race_rounds(default: usize) -> usize {
    env_value("KAIROS_RACE_ROUNDS").unwrap_or(default)
}

/// Returns how many samples of each class a timing comparison takes: `KAIROS_TIMING_SAMPLES`, if it is set.
pub fn timing_samples() -> Option<usize> {
    env_value("KAIROS_TIMING_SAMPLES")
}

/// True if an environment variable requests more samples, rounds or sequences than the test suite runs by
/// default.
pub fn is_long_run() -> bool {
    let variables = ["KAIROS_TIMING_SAMPLES", "KAIROS_RACE_ROUNDS", "KAIROS_MODEL_SEQUENCES"];
    variables.into_iter().any(|variable| env_value::<u64>(variable).is_some())
}

/// Returns how many random sequences of calls run: `KAIROS_MODEL_SEQUENCES`, or `default`.
pub fn model_sequences(default: usize) -> usize {
    env_value("KAIROS_MODEL_SEQUENCES").unwrap_or(default)
}

/// Returns the seed of the random sequences: `KAIROS_MODEL_SEED`, or a new random number.
pub fn model_seed() -> u64 {
    env_value("KAIROS_MODEL_SEED").unwrap_or_else(|| u64::from_le_bytes(Entropy::system().bytes()))
}

#[expect(clippy::disallowed_methods, reason = "an environment variable sets how long a test runs")]
fn env_value<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}
