//! The scripts of contributors: each says what it does, and CONTRIBUTING.md calls them as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    markdown::blocks,
    program::{stderr, stdout},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns what a script prints for `--help`. It may find no tool besides those of every system, and install
/// none.
fn help_of(script: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(root().join(script));
    command.arg("--help").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path());
    let output = command.current_dir(home.path()).output().unwrap();
    assert!(output.status.success() && stderr(&output).is_empty(), "{script}: {output:?}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{script} created files");
    stdout(&output)
}

#[test]
fn every_script_says_what_it_does_and_does_nothing_else() {
    let scripts = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    let scripts: Vec<_> = scripts.filter(|path| path.is_file()).collect();
    assert!(scripts.len() > 5, "{scripts:?}");
    for script in scripts {
        let name = script.file_name().unwrap().to_str().unwrap();
        let help = help_of(&format!("scripts/{name}"));
        assert!(help.trim().lines().count() >= 2 && !help.contains("set -euo"), "{name}: {help}");
    }
}

/// Adds the texts of all Rust files in a folder to `sources`.
fn add_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            add_sources(&entry, sources);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(entry).unwrap());
        }
    }
}

/// The commands take minutes to hours, so they are compared with the scripts instead of run.
#[test]
fn the_commands_of_contributing_exist() {
    let mut sources = String::new();
    for folder in ["src", "tests/it"] {
        add_sources(&root().join(folder), &mut sources);
    }
    let document = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let blocks = blocks(&document).into_iter().filter(|block| block.language == "sh");
    let text: Vec<_> = blocks.map(|block| block.text).collect();
    let commands = text.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty());
    let mut count = 0;
    for command in commands {
        count += 1;
        let words: Vec<_> =
            command.split_whitespace().take_while(|word| *word != "#" && *word != "--").collect();
        let [script, arguments @ ..] = words.as_slice() else { panic!("{command}") };
        let help = help_of(script);
        for argument in arguments {
            if *script == "scripts/test" {
                // Arguments of `cargo test`, and parts of the names of tests.
                let is_name = |part: &str| {
                    ["fn ", "mod ", "::"].iter().any(|before| sources.contains(&format!("{before}{part}")))
                };
                assert!(
                    argument.starts_with("--") || argument.split("::").all(is_name),
                    "{command}: {argument}"
                );
            } else if argument.starts_with("--") {
                assert!(help.contains(argument), "{command}: {argument} is not in its help");
            }
        }
    }
    assert!(count > 10, "{count}");
}
