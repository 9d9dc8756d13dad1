//! The house of DESIGN.md, section 2: which room may use which, held by reading the sources.

use std::{fs, path::PathBuf};

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
    ("access_token", &["domain"]),
    ("callers", &["domain"]),
    ("store", &["domain"]),
    ("config", &["domain"]),
    ("server", &["clock", "entropy"]),
    ("accounts", &["access_token", "store", "password", "domain", "clock", "entropy", "sealing"]),
    ("mail", &["store", "domain", "clock", "entropy", "sealing"]),
    ("grpc", &["accounts", "callers", "store", "domain", "proto", "clock", "entropy", "server"]),
    ("import", &["clock", "domain", "entropy", "password", "sealing", "store"]),
    ("pages", &["accounts", "callers", "clock", "domain", "entropy", "server", "store"]),
    (
        "cli",
        &[
            "access_token",
            "accounts",
            "callers",
            "clock",
            "config",
            "domain",
            "entropy",
            "grpc",
            "import",
            "mail",
            "pages",
            "password",
            "sealing",
            "server",
            "store",
            "telemetry",
        ],
    ),
];

/// What only these rooms may name. A library stands for its companions too: `diesel` for `diesel_async`.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("diesel", &["store"]),
    ("tokio_postgres", &["store"]),
    ("tonic", &["grpc", "server", "proto", "cli"]),
    ("prost", &["grpc", "proto"]),
    ("lettre", &["mail"]),
    ("jsonwebtoken", &["access_token"]),
    ("clap", &["cli", "config"]),
    ("std::env", &["config"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
    ("getrandom", &["entropy"]),
];

/// Libraries that the domain must not know, besides those above.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "serde", "tracing"];

/// The breaches in the file at `path` (from `src`).
fn breaches(path: &str, source: &str) -> Vec<String> {
    let module: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|name| *name != "mod").collect();
    let room = module[0];
    let Some((_, may_use)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: {room} is not a room of the house")];
    };
    let is_breach = |named: &str| {
        let other = ARROWS.iter().find(|(other, _)| room_of(&module, named) == Some(other));
        let to_a_room = other.is_some_and(|(other, _)| *other != room && !may_use.contains(other));
        let foreign = ONLY_IN.iter().any(|(what, rooms)| !rooms.contains(&room) && is_of(named, what));
        let never = room == "domain" && NEVER_IN_DOMAIN.iter().any(|library| is_of(named, library));
        to_a_room || foreign || never
    };
    let named = paths(&without_tests(source)).into_iter().filter(|(_, named)| is_breach(named));
    named.map(|(number, named)| format!("{path}:{number}: {room} uses {named}")).collect()
}

/// The room that a path leads to from a module; `None` for its own surroundings and for libraries.
fn room_of<'a>(module: &[&'a str], path: &'a str) -> Option<&'a str> {
    let mut steps = path.split("::").peekable();
    match steps.next()? {
        "crate" => steps.next(),
        "super" => {
            let mut depth = module.len().checked_sub(1)?;
            while steps.next_if_eq(&"super").is_some() {
                depth = depth.checked_sub(1)?;
            }
            if depth == 0 { steps.next() } else { Some(module[0]) }
        }
        _ => None,
    }
}

/// Whether a path begins with a library or one of its companions, or has these two names somewhere in it.
fn is_of(path: &str, what: &str) -> bool {
    if what.contains("::") {
        return format!("::{path}::").contains(&format!("::{what}::"));
    }
    let first = path.split("::").next().unwrap_or_default();
    first.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The lines that are code and no test's, with their numbers.
fn without_tests(source: &str) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = source.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // rustfmt sets the end of an item as deep as its beginning.
            let depth = line.len() - line.trim_start().len();
            lines.find(|(_, line)| {
                let is_as_deep = line.get(depth..).is_some_and(|rest| !rest.starts_with(' '));
                is_as_deep && line.ends_with(['}', ';'])
            });
        } else if !line.trim_start().starts_with("//") {
            kept.push((number, line.split(" // ").next().unwrap_or_default()));
        }
    }
    kept
}

/// Every path that is named, those of a `use` written out, with its line.
fn paths(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = lines.iter();
    while let Some((number, line)) = lines.next() {
        let Some(tree) = after_use(line) else {
            let path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let words = line.split(|c| !path(c)).map(|word| word.trim_matches(':'));
            found.extend(words.filter(|word| word.contains("::")).map(|word| (*number, word.to_owned())));
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(lines.next().expect("a use ends").1.trim());
        }
        let mut written_out = Vec::new();
        write_out("", tree.trim_end_matches(';'), &mut written_out);
        found.extend(written_out.into_iter().map(|path| (*number, path)));
    }
    found
}

/// What stands behind `use`, `pub use` and `pub(…) use`.
fn after_use(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => line,
    };
    line.strip_prefix("use ")
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn write_out(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    for (at, c) in tree.char_indices().chain([(tree.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = tree[start..at].trim();
                start = at + 1;
                match item.split_once('{') {
                    Some((head, inner)) => {
                        write_out(&format!("{prefix}{head}"), inner.trim_end_matches('}'), found);
                    }
                    None if item.is_empty() => {}
                    None => found.push(format!("{prefix}{}", item.split(' ').next().unwrap_or_default())),
                }
            }
            _ => {}
        }
    }
}

/// Each source file that is not a test's, with its path from `src`.
fn sources() -> Vec<(String, PathBuf)> {
    let house = repository().join("src");
    let (mut files, mut folders) = (Vec::new(), vec![house.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&house).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") && !["lib.rs", "main.rs"].contains(&name.as_str()) {
                files.push((name, path));
            }
        }
    }
    files
}

#[test]
fn every_arrow_points_down() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(name, path)| breaches(name, &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_breach_is_noticed() {
    for (path, source) in [
        ("domain/user.rs", "use crate::store::Store;"),
        ("domain/user.rs", "use tokio::sync::Notify;"),
        ("store/users.rs", "use crate::accounts::Accounts;"),
        ("store/users.rs", "    crate::config::Settings::read();"),
        ("store/users.rs", "use crate::{\n    domain::User,\n    grpc::status,\n};"),
        ("store/mod.rs", "pub(crate) use crate::{domain::{Email, User}, mail};"),
        ("clock.rs", "use super::store::Store;"),
        ("grpc/layer/log.rs", "use super::super::super::mail::Outbox;"),
        ("accounts/mod.rs", "use diesel::prelude::*;"),
        ("accounts/mod.rs", "    let url: diesel_async::AsyncPgConnection;"),
        ("accounts/mod.rs", "    tonic::Status::internal(\"x\");"),
        ("accounts/mod.rs", "#[cfg(test)]\nmod tests;\nmod verbs;\nuse tonic::Status;"),
        ("accounts/mod.rs", "#[cfg(test)]\nuse tonic::{\n    Code,\n};\nuse tonic::Status;"),
        ("grpc/users.rs", "use crate::mail::Outbox;"),
        ("mail/outbox.rs", "    let now = std::time::SystemTime::now();"),
        ("store/mod.rs", "use std::{env, fs};"),
        ("store/mod.rs", "    std::env::var(\"HOME\")"),
        ("accounts/mod.rs", "use crate::{config, store::Store};"),
        ("kitchen/mod.rs", ""),
    ] {
        assert!(!breaches(path, source).is_empty(), "{path}: {source}");
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    for (path, source) in [
        ("accounts/mod.rs", "use crate::{\n    domain::User,\n    store::Store,\n};"),
        ("store/users.rs", "use diesel::prelude::*;"),
        ("domain/user.rs", "// crate::store is not known here\nlet x = 1; // nor is crate::mail"),
        ("grpc/users.rs", "use crate::{accounts::Accounts, store::Store};"),
        ("grpc/layer/panic.rs", "use super::super::status::refusal;"),
        ("accounts/mod.rs", "    with.store.ping().await?;"),
        ("cli/users.rs", "use super::{store, reason};\nstore::open();"),
        (
            "mail/mod.rs",
            "    let store = outbox.store;\n#[cfg(test)]\nmod tests {\n    use crate::config::Settings;\n}",
        ),
    ] {
        assert_eq!(breaches(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
