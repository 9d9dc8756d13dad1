//! Checks the module dependencies described in `docs/architecture.md`: reads the sources and reports each
//! module that uses another module, or a library, that it may not use.

use std::fs;

use crate::support::rust_source::{paths, sources, without_tests};

/// The modules of this crate that each top-level module may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("entropy", &[]),
    ("env", &["clock", "entropy"]),
    ("metrics", &[]),
    ("batch_queue", &[]),
    ("connection_failure", &[]),
    ("input_file", &["domain"]),
    ("postgres_url", &[]),
    ("proto", &[]),
    ("publish", &[]),
    ("telemetry", &["metrics", "server"]),
    ("sealing", &["domain", "entropy", "input_file", "publish"]),
    ("password", &["clock", "domain", "entropy", "env", "metrics"]),
    ("access_token", &["domain", "metrics"]),
    ("callers", &["domain"]),
    ("database", &["clock", "connection_failure", "domain", "entropy", "input_file", "postgres_url"]),
    ("store", &["batch_queue", "database", "domain", "metrics"]),
    ("django", &["database", "domain"]),
    ("maintenance", &["database", "domain", "publish", "store"]),
    ("config", &["domain", "input_file", "postgres_url"]),
    ("server", &["clock", "domain", "entropy", "input_file", "metrics"]),
    (
        "accounts",
        &["access_token", "database", "store", "password", "domain", "clock", "entropy", "env", "sealing"],
    ),
    (
        "mail",
        &[
            "connection_failure",
            "database",
            "store",
            "domain",
            "clock",
            "entropy",
            "env",
            "metrics",
            "publish",
            "sealing",
        ],
    ),
    (
        "grpc",
        &[
            "access_token",
            "accounts",
            "callers",
            "database",
            "store",
            "domain",
            "proto",
            "clock",
            "entropy",
            "env",
            "metrics",
            "sealing",
            "server",
        ],
    ),
    ("import", &["clock", "database", "django", "domain", "entropy", "env", "password", "sealing", "store"]),
    ("pages", &["accounts", "callers", "clock", "domain", "entropy", "env", "server", "store"]),
    (
        "cli",
        &[
            "access_token",
            "accounts",
            "callers",
            "clock",
            "config",
            "connection_failure",
            "database",
            "django",
            "domain",
            "entropy",
            "env",
            "grpc",
            "import",
            "input_file",
            "mail",
            "maintenance",
            "metrics",
            "pages",
            "password",
            "postgres_url",
            "publish",
            "sealing",
            "server",
            "store",
            "telemetry",
        ],
    ),
];

/// Libraries and functions that only the listed modules may use. A library name includes its companions:
/// `diesel` includes `diesel_async`.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("diesel", &["database", "store", "django", "import", "maintenance"]),
    ("tokio_postgres", &["postgres_url", "database"]),
    ("tonic", &["grpc", "server", "proto", "cli"]),
    ("prost", &["grpc", "proto"]),
    ("lettre", &["mail"]),
    ("prometheus_client", &["metrics"]),
    ("jsonwebtoken", &["access_token"]),
    ("clap", &["cli", "config"]),
    ("std::env", &["config"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
    ("getrandom", &["entropy"]),
];

/// Further libraries that `domain` must not use.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "serde", "tracing"];

/// Returns the violations in the source of the file at `path` (relative to `src`).
fn violations(path: &str, source: &str) -> Vec<String> {
    let file: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|name| *name != "mod").collect();
    let module = file[0];
    let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: the module {module} is not in the list")];
    };
    let is_violation = |named: &str| {
        let other = MAY_USE.iter().find(|(other, _)| module_of(&file, named) == Some(other));
        let uses_module = other.is_some_and(|(other, _)| *other != module && !may_use.contains(other));
        let uses_library =
            ONLY_IN.iter().any(|(what, modules)| !modules.contains(&module) && is_of(named, what));
        let never = module == "domain" && NEVER_IN_DOMAIN.iter().any(|library| is_of(named, library));
        uses_module || uses_library || never
    };
    let named = paths(&without_tests(source)).into_iter().filter(|(_, named)| is_violation(named));
    named.map(|(number, named)| format!("{path}:{number}: {module} uses {named}")).collect()
}

/// Returns the top-level module that `path` names when it is used in `file`; `None` for relative paths and
/// libraries.
fn module_of<'a>(file: &[&'a str], path: &'a str) -> Option<&'a str> {
    let mut steps = path.split("::").peekable();
    match steps.next()? {
        "crate" => steps.next(),
        "super" => {
            let mut depth = file.len().checked_sub(1)?;
            while steps.next_if_eq(&"super").is_some() {
                depth = depth.checked_sub(1)?;
            }
            if depth == 0 { steps.next() } else { Some(file[0]) }
        }
        _ => None,
    }
}

/// True if `path` begins with the library `what` or one of its companions, or, for a `what` with `::`,
/// contains it.
fn is_of(path: &str, what: &str) -> bool {
    if what.contains("::") {
        return format!("::{path}::").contains(&format!("::{what}::"));
    }
    let first = path.split("::").next().unwrap_or_default();
    first.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

#[test]
fn every_module_uses_only_what_it_may() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(name, path)| violations(name, &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_violation_is_detected() {
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
        assert!(!violations(path, source).is_empty(), "{path}: {source}");
    }
}

#[test]
fn an_allowed_use_is_no_violation() {
    for (path, source) in [
        ("accounts/mod.rs", "use crate::{\n    domain::User,\n    store::Store,\n};"),
        ("store/users.rs", "use diesel::prelude::*;"),
        ("domain/user.rs", "// crate::store is only named in a comment\nlet x = 1; // and so is crate::mail"),
        ("grpc/users.rs", "use crate::{accounts::Accounts, store::Store};"),
        ("grpc/layer/panic.rs", "use super::super::status::refusal;"),
        ("accounts/mod.rs", "    with.store.ping().await?;"),
        ("cli/users.rs", "use super::{store, reason};\nstore::open();"),
        (
            "mail/mod.rs",
            "    let store = outbox.store;\n#[cfg(test)]\nmod tests {\n    use crate::config::Settings;\n}",
        ),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
