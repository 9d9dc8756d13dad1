//! The completions and the man pages, as a shell and `man` read them.

use std::{fs, process::Command};

use crate::support::program::{error_line, program, run, stdout};

/// Returns what bash offers after these words, the last of which is incomplete.
fn completed(script: &str, words: &[&str]) -> String {
    let fill = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _kairos__identity kairos-identity \"${{COMP_WORDS[-1]}}\" x; \
         echo \"${{COMPREPLY[*]}}\"",
        words.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["-c", &fill]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = stdout(&run(&["completions", "bash"]));
    assert_eq!(completed(&script, &["kairos-identity", "doc"]), "doctor\n");
    assert_eq!(completed(&script, &["kairos-identity", "user", "unl"]), "unlock\n");
    assert_eq!(completed(&script, &["kairos-identity", "serve", "--http-l"]), "--http-listen\n");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&run(&["completions", shell])).contains("doctor"), "{shell}");
    }
}

#[test]
fn each_command_has_a_man_page_that_man_can_show() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    assert_eq!(stdout(&run(&["man", "--to", to])), "");
    let help = stdout(&run(&["--help"]));
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names =
        names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    for name in names.filter(|name| *name != "help") {
        let page = fs::read_to_string(folder.path().join(format!("kairos-identity-{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH kairos-identity-{name} 1")), "{name}: {page}");
    }
    let page = fs::read_to_string(folder.path().join("kairos-identity-user-unlock.1")).unwrap();
    assert!(page.contains("count of a user"), "{page}");

    let error = error_line(1, &run(&["man", "--to", &format!("{to}/missing")]));
    assert!(error.contains("--to") && error.contains("create it first"), "{error}");
}

/// They know no settings, so a broken one does not matter.
#[test]
fn completions_need_no_valid_settings() {
    let mut command = program(&["completions", "bash"]);
    let output = command.env("KAIROS_IDENTITY_LOG_LEVEL", "loud").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
