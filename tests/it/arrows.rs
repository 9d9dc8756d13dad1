//! The house of DESIGN.md, section 2: which room may use which, held by reading the sources.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::support::tools::repository;

/// What each room may use of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("entropy", &[]),
    ("proto", &[]),
    ("telemetry", &[]),
    ("sealing", &["domain", "entropy"]),
    ("password", &["domain", "entropy"]),
    ("store", &["domain"]),
    ("config", &["domain"]),
    ("server", &["clock", "entropy"]),
    ("accounts", &["store", "password", "domain", "clock", "entropy", "sealing"]),
    ("mail", &["store", "domain", "clock", "entropy", "sealing"]),
    ("grpc", &["accounts", "store", "domain", "proto", "clock", "entropy"]),
    (
        "cli",
        &[
            "accounts",
            "clock",
            "config",
            "domain",
            "entropy",
            "grpc",
            "mail",
            "password",
            "sealing",
            "server",
            "store",
            "telemetry",
        ],
    ),
];

/// What only these rooms may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("diesel", &["store"]),
    ("tonic", &["grpc", "server", "proto", "cli"]),
    ("prost", &["grpc", "proto"]),
    ("prost_types", &["grpc", "proto"]),
    ("lettre", &["mail"]),
    ("clap", &["cli", "config"]),
    ("std::env", &["config"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
    ("getrandom::", &["entropy"]),
];

/// Libraries that the domain must not know, besides those above.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "serde", "tracing"];

/// The breaches in one file.
fn breaches(room: &str, source: &str) -> Vec<String> {
    let Some((_, may_use)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{room} is not a room of the house")];
    };
    let mut found = Vec::new();
    for (number, line) in code_lines(source) {
        for (other, _) in ARROWS.iter().filter(|(other, _)| *other != room && !may_use.contains(other)) {
            if names(line, &format!("crate::{other}")) || in_braces(source, number, line, other) {
                found.push(format!("line {number}: {room} uses {other}: {line}"));
            }
        }
        let foreign = ONLY_IN.iter().filter(|(_, rooms)| !rooms.contains(&room)).map(|(library, _)| *library);
        let never = NEVER_IN_DOMAIN.iter().copied().filter(|_| room == "domain");
        for library in foreign.chain(never) {
            if names(line, library) {
                found.push(format!("line {number}: {room} uses {library}: {line}"));
            }
        }
    }
    found
}

/// The lines that are code, with their numbers; tests at the end of a file may use what they like.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = source.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether the line names the path: what stands around it is no part of a longer name.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_path = path.ends_with("::")
            || path.contains("::")
            || after == Some(':')
            || line.trim_start().starts_with("use ");
        !is_part(before) && (path.ends_with("::") || !is_part(after)) && is_path
    })
}

/// Whether `line` is in a `use crate::{…}` and begins with the room's name.
fn in_braces(source: &str, number: usize, line: &str, room: &str) -> bool {
    let before: Vec<&str> = source.lines().take(number).collect();
    let opened = before.iter().rposition(|line| line.starts_with("use crate::{"));
    let is_inside =
        opened.is_some_and(|opened| !before[opened..number - 1].iter().any(|line| line.contains("};")));
    let words = line.trim_start().trim_start_matches("use crate::{");
    is_inside
        && words
            .split(", ")
            .any(|word| word.starts_with(&format!("{room}::")) || word.trim_end_matches("};") == room)
}

/// Each source file with its room.
fn sources() -> BTreeMap<PathBuf, String> {
    let house = repository().join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![house.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") {
                let room = room(path.strip_prefix(&house).unwrap());
                files.insert(path, room);
            }
        }
    }
    files
}

fn room(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_arrow_points_down() {
    let mut found = Vec::new();
    for (path, room) in sources() {
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        found.extend(
            breaches(&room, &source).into_iter().map(|breach| format!("{}: {breach}", path.display())),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_breach_is_noticed() {
    for (room, line) in [
        ("domain", "use crate::store::Store;"),
        ("domain", "use tokio::sync::Notify;"),
        ("store", "use crate::accounts::Accounts;"),
        ("store", "    crate::config::Settings::read();"),
        ("store", "use crate::{\n    domain::User,\n    grpc::status,\n};"),
        ("accounts", "use diesel::prelude::*;"),
        ("accounts", "    tonic::Status::internal(\"x\");"),
        ("grpc", "use crate::mail::Outbox;"),
        ("mail", "    let now = std::time::SystemTime::now();"),
        ("accounts", "use crate::{config, store::Store};"),
        ("kitchen", ""),
    ] {
        assert!(!breaches(room, line).is_empty(), "{room}: {line}");
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    for (room, line) in [
        ("accounts", "use crate::{\n    domain::User,\n    store::Store,\n};"),
        ("store", "use diesel::prelude::*;"),
        ("domain", "// crate::store is not known here"),
        ("grpc", "use crate::{accounts::Accounts, store::Store};"),
        ("accounts", "    with.store.ping().await?;"),
        ("mail", "    let store = outbox.store;\n#[cfg(test)]\nuse crate::config::Settings;"),
    ] {
        assert_eq!(breaches(room, line), Vec::<String>::new(), "{room}: {line}");
    }
}
