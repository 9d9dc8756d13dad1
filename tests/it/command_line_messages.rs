//! Errors and help of the commands: an error names the thing, the cause and the way out.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Runs the binary in `folder` with an empty environment.
fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kairos-identity"))
        .args(arguments)
        .env_clear()
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Runs the binary in a new folder, where it must fail with this exit code; returns the error line.
#[track_caller]
fn refusal(code: i32, arguments: &[&str]) -> String {
    error_line(code, &run_in(tempfile::tempdir().unwrap().path(), arguments))
}

/// Asserts that a command failed with this exit code and one error line; returns that line.
#[track_caller]
fn error_line(code: i32, output: &Output) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(code), 1), "{errors}");
    lines[0].to_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn a_malformed_value_in_the_command_line_exits_with_2_and_the_error_states_the_form() {
    let import = ["import", "django", "--from", "sqlite://a", "--follow", "--follow-interval"];
    for (arguments, form) in [
        (&["serve", "--listen", "nowhere"][..], "server.listen: expected an address and a port"),
        (&["serve", "--database-url", "mysql://a/b"], "expected sqlite:///folder/file"),
        (&["serve", "--mail-url", "mail.example"], "expected file:///folder"),
        (&["copy", "--from", "mysql://a/b"], "--from: expected sqlite:///folder/file"),
        (&["copy", "--from", "sqlite://a", "--to", "mysql://a/b"], "flag --to"),
        (&["import", "verify", "--from", "mysql://a/b"], "--from: expected sqlite:///folder/file"),
        (&["export", "django", "--to", "mysql://a/b"], "--to: expected sqlite:///folder/file"),
        (
            &[&import[..], &["x"]].concat(),
            "'--follow-interval <SECONDS>': expected a whole number of seconds",
        ),
        (&[&import[..], &["0"]].concat(), "from 1 to 3600"),
        (&["user", "list", "--since", "yesterday"], "'--since <TIME>': expected a time such as"),
        (&["audit", "--until", "soon"], "'--until <TIME>': expected a time such as"),
        (&["user", "show", "a@b@c"], "the email"),
        (&["audit", "--user", "un\u{200b}known"], "the username"),
        (&["caller", "token", "kst_bff"], "must not begin with kst_"),
    ] {
        assert_contains_all(&refusal(2, arguments), &[form]);
    }
    let folder = tempfile::tempdir().unwrap();
    assert_contains_all(
        &stdout(&run_in(folder.path(), &["--help"])),
        &["2 for an invalid command line", "malformed value"],
    );
    fs::write(folder.path().join("kairos.toml"), "[server]\nlisten = \"nowhere\"").unwrap();
    let in_a_file = run_in(folder.path(), &["serve", "--config", "kairos.toml"]);
    assert_contains_all(&error_line(1, &in_a_file), &["server.listen: expected an address and a port"]);
}

#[test]
fn no_error_about_a_flag_shows_a_password() {
    for arguments in [
        &["copy", "--from", "mysql://kairos:hunter2@db/x"][..],
        &["import", "verify", "--from", "mysql://kairos:hunter2@db/x"],
        &["serve", "--database-url", "mysql://kairos:hunter2@db/x"],
    ] {
        let refusal = refusal(2, arguments);
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn the_help_of_a_comparison_does_not_describe_an_import() {
    let help = stdout(&run_in(Path::new("."), &["import", "verify", "--help"]));
    assert_contains_all(&help, &["--from <URL>", "--to <URL>", "--secret-key-file <FILE>"]);
    for words in ["to import into", "the import records"] {
        assert!(!help.contains(words), "{words:?}: {help}");
    }
}
