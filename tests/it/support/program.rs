//! The binary as a program that runs to its end: its output, and its one error line.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Returns the command with these arguments, not yet started, with the lowest hash cost.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(arguments).env("KAIROS_IDENTITY_PASSWORD_COST", "4");
    command.env("KAIROS_IDENTITY_PASSWORD_INSECURE_LOW_COST", "true");
    command.env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "0s");
    command.env("KAIROS_IDENTITY_TELEMETRY_LISTEN", "127.0.0.1:0");
    command
}

/// Runs the binary in `folder` with an empty environment, except that it does not wait for a PostgreSQL
/// server, and that it serves metrics on any free port.
pub fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kairos-identity"))
        .args(arguments)
        .env_clear()
        .env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "0s")
        .env("KAIROS_IDENTITY_TELEMETRY_LISTEN", "127.0.0.1:0")
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Runs the binary in a new folder as [`run_in`] does.
pub fn run(arguments: &[&str]) -> Output {
    run_in(tempfile::tempdir().unwrap().path(), arguments)
}

/// Returns the standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asserts that a command failed with this exit code and one error line; returns that line.
#[track_caller]
pub fn error_line(code: i32, output: &Output) -> String {
    let errors = stderr(output);
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(code), 1), "{errors}");
    lines[0].to_owned()
}

/// Asserts that a text has each of these parts.
#[track_caller]
pub fn assert_contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}
