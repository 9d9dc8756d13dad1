//! Runs the commands of `docs/moving-from-django.md` as written, in a new folder.

use std::{fs, path::Path, process::Command};

use super::fixtures;
use crate::support::{
    markdown::blocks,
    program::{stderr, stdout},
    tools::repository,
};

/// True if the block needs a PostgreSQL server, runs until it is stopped, or starts a third-party program.
fn is_skipped(block: &str) -> bool {
    let is_third_party = ["openssl ", "sqlite3 "].iter().any(|program| block.starts_with(program));
    is_third_party || ["postgres://", "--follow", " serve"].iter().any(|word| block.contains(word))
}

#[test]
fn the_commands_run_as_written() {
    let document = fs::read_to_string(repository().join("docs/moving-from-django.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("django.sqlite3"), fs::read(fixtures().join("documented.sqlite3")).unwrap())
        .unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_kairos-identity")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", binary.display());
    let mut run = 0;
    let commands =
        blocks(&document).into_iter().filter(|block| block.language == "sh").map(|block| block.text);
    for block in commands.filter(|block| !is_skipped(block.trim_start())) {
        let output = Command::new("sh")
            .args(["-c", &block])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", &path)
            .env("KAIROS_IDENTITY_PASSWORD_COST", "4")
            .env("KAIROS_IDENTITY_PASSWORD_INSECURE_LOW_COST", "true")
            .output()
            .unwrap();
        // The dry run reports conflicts that the operator must decide, so it exits with 1.
        let expected = i32::from(block.contains("--dry-run"));
        assert_eq!(output.status.code(), Some(expected), "{block}\n{}{}", stdout(&output), stderr(&output));
        run += 1;
    }
    assert!(run >= 6, "{run} blocks");
    let verified = Command::new(env!("CARGO_BIN_EXE_kairos-identity"))
        .args(["import", "verify", "--from", "sqlite://django.sqlite3"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "the users differ from the source at the end of the document: {}",
        stderr(&verified)
    );
}
