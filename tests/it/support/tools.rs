//! Programs of other people, as `scripts/setup test` installs them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kairos_identity::entropy::Entropy;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs grpcurl without TLS; the first of `arguments` may be more flags.
pub fn grpcurl(arguments: &[&str]) -> Output {
    Command::new(tool("grpcurl")).arg("-plaintext").args(arguments).output().unwrap()
}

/// Runs a script of `tests/support` in the tests' Python.
pub fn python(script: &str, arguments: &[&str]) -> Output {
    python_command(script).args(arguments).output().unwrap()
}

/// The same, to be started by the caller.
pub fn python_command(script: &str) -> Command {
    let mut command = Command::new(python_path());
    command.arg(repository().join("tests/support").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The tests' Python, with Django and the clients of `requirements.txt`.
pub fn python_path() -> PathBuf {
    tool("python")
}

/// A program or a package of `.tools/node_modules`.
pub fn node_module(path: &str) -> PathBuf {
    installed(repository().join(".tools/node_modules").join(path))
}

fn tool(name: &str) -> PathBuf {
    installed(repository().join(".tools/venv/bin").join(name))
}

#[track_caller]
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `scripts/setup test`", path.display());
    path
}

/// How long each attack is played: a moment, or as `KAIROS_ATTACK_SECONDS` says.
pub fn attack_seconds() -> std::time::Duration {
    std::time::Duration::from_secs(asked_for("KAIROS_ATTACK_SECONDS").unwrap_or(2))
}

/// How often a race is run: as often as `KAIROS_RACE_ROUNDS` says, or a few times.
pub fn race_rounds(few: usize) -> usize {
    asked_for("KAIROS_RACE_ROUNDS").unwrap_or(few)
}

/// How many samples of each class a comparison of times takes, if `KAIROS_TIMING_SAMPLES` says.
pub fn timing_samples() -> Option<usize> {
    asked_for("KAIROS_TIMING_SAMPLES")
}

/// Whether whoever runs the test has asked for more of something than the suite does.
pub fn is_campaign() -> bool {
    let asked = ["KAIROS_TIMING_SAMPLES", "KAIROS_RACE_ROUNDS", "KAIROS_MODEL_SEQUENCES"];
    asked.into_iter().any(|variable| asked_for::<u64>(variable).is_some())
}

/// How many random sequences of calls are tried, or as many as `KAIROS_MODEL_SEQUENCES` says.
pub fn model_sequences(few: usize) -> usize {
    asked_for("KAIROS_MODEL_SEQUENCES").unwrap_or(few)
}

/// What they begin with: another number each time, or the one of `KAIROS_MODEL_SEED`.
pub fn model_seed() -> u64 {
    asked_for("KAIROS_MODEL_SEED").unwrap_or_else(|| u64::from_le_bytes(Entropy::system().bytes()))
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test says how large")]
fn asked_for<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}
