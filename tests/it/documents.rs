//! The documents name only files, items and tests that exist.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::tools::repository;

/// The folders of the repository that the documents name.
const FOLDERS: [&str; 10] = [
    "benches/",
    "docs/",
    "examples/",
    "fuzz/",
    "migrations/",
    "proto/",
    "scripts/",
    "src/",
    "templates/",
    "tests/",
];

/// The folder in which `cargo fuzz` stores the inputs that fail.
const WRITTEN_BY_TOOLS: &str = "fuzz/artifacts";

/// A test that a document names, in backticks: `it: grpc::login::NAME` or `unit: domain::email::tests::NAME`.
#[derive(Debug)]
struct NamedTest {
    line: usize,
    is_integration: bool,
    path: Vec<String>,
    /// True if the document states that the test runs on both engines.
    is_on_both_engines: bool,
}

/// Returns the name and the text of each document.
fn documents() -> Vec<(String, String)> {
    let in_docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let in_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| repository().join(name));
    let documents = in_docs.chain(in_root).filter(|path| has_extension(path, "md"));
    documents
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn has_extension(path: impl AsRef<Path>, extension: &str) -> bool {
    path.as_ref().extension().is_some_and(|found| found == extension)
}

/// Returns the paths in the text, with their line numbers.
fn paths(text: &str) -> Vec<(usize, String)> {
    let is_part = |c: char| c.is_alphanumeric() || "_/.*-".contains(c);
    let in_line = |(index, line): (usize, &str)| {
        let words = line.split(move |c: char| !is_part(c)).map(|word| word.trim_start_matches(['.', '/']));
        let paths = words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
        paths.map(|path| (index + 1, path.trim_end_matches(['.', '/', '-']).to_owned())).collect::<Vec<_>>()
    };
    text.lines().enumerate().flat_map(in_line).collect()
}

/// True if the path exists. A name in capital letters, such as `SECTION.rs`, and a `*` match any name: then
/// only the folder must exist or, for a `*`, one file that matches.
fn exists(path: &str) -> bool {
    if path == WRITTEN_BY_TOOLS || repository().join(path).exists() {
        return true;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    let folder = repository().join(folder);
    if let Some((start, end)) = name.split_once('*') {
        let files = fs::read_dir(folder).into_iter().flatten();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        return names.any(|name| name.starts_with(start) && name.ends_with(end));
    }
    let stem = name.split('.').next().unwrap_or_default();
    let is_placeholder = !has_extension(name, "md") && !stem.contains(|c: char| c.is_ascii_lowercase());
    is_placeholder && folder.is_dir()
}

/// Returns each item that the text names as "`ITEM` in PATH.rs", and the path.
fn items(text: &str) -> Vec<(String, String)> {
    let spans: Vec<&str> = text.split('`').collect();
    let in_file = |pair: &[&str]| {
        let rest = on_one_line(pair[1]);
        let path = rest.strip_prefix("in ")?;
        let (_, path) = paths(path).into_iter().next().filter(|(_, found)| path.starts_with(found))?;
        let item = words(pair[0]).last().filter(|_| has_extension(&path, "rs"))?;
        Some((item.to_owned(), path))
    };
    spans.windows(2).filter_map(in_file).collect()
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the identifiers in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Returns the tests that the text names.
fn tests_in(text: &str) -> Vec<NamedTest> {
    let spans: Vec<&str> = text.split('`').collect();
    let (mut found, mut line) = (Vec::new(), 1);
    for (number, span) in spans.iter().enumerate() {
        if let (1, Some((kind @ ("it" | "unit"), name))) = (number % 2, span.split_once(": ")) {
            let rest = spans.get(number + 1).map(|rest| on_one_line(rest)).unwrap_or_default();
            found.push(NamedTest {
                line,
                is_integration: kind == "it",
                path: name.split("::").map(str::to_owned).collect(),
                is_on_both_engines: rest.starts_with("(both engines)"),
            });
        }
        line += span.matches('\n').count();
    }
    found
}

/// Returns the source of a module: its file or, for a module within a file, its lines there.
fn module(is_integration: bool, path: &[String]) -> Option<String> {
    let root = repository().join(if is_integration { "tests/it" } else { "src" });
    let file = |steps: &[String]| -> Option<PathBuf> {
        let path = root.join(steps.join("/"));
        let own = if steps.is_empty() { path.join("main.rs") } else { path.with_extension("rs") };
        [own, path.join("mod.rs")].into_iter().find(|file| file.is_file())
    };
    if let Some(file) = file(path) {
        return fs::read_to_string(file).ok();
    }
    let (name, outer) = path.split_last()?;
    let source = fs::read_to_string(file(outer)?).unwrap();
    let lines = source.lines().skip_while(|line| *line != format!("mod {name} {{"));
    let lines: Vec<&str> = lines.take_while(|line| *line != "}").collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Returns why the test is not as the document describes it, or `None`.
fn fault(test: &NamedTest) -> Option<&'static str> {
    let (name, path) = test.path.split_last().unwrap();
    let Some(source) = module(test.is_integration, path) else { return Some("has no such module") };
    if name == "*" {
        return None;
    }
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    // The macro `attacks!` makes a test of each word in its body.
    let is_in_macro = lines.iter().any(|line| line.starts_with("attacks! {"));
    if is_in_macro && lines.iter().any(|line| line.split(' ').any(|word| word == name)) {
        return None;
    }
    let function = |line: &&str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name.as_str()))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(function) else { return Some("has no such function") };
    let is_on_both_engines =
        lines[at].ends_with("(engine: Engine) {") && source.contains("on_both_engines! {");
    let mut above =
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    if !is_on_both_engines
        && !above.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    {
        return Some("is no test");
    }
    (test.is_on_both_engines && !is_on_both_engines).then_some("runs on one engine")
}

#[test]
fn every_path_in_the_documents_exists() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        let dead = paths(&text).into_iter().filter(|(_, path)| !exists(path));
        missing.extend(dead.map(|(line, path)| format!("{document}:{line}: {path}")));
    }
    assert!(missing.is_empty(), "these files do not exist:\n{}", missing.join("\n"));
}

#[test]
fn every_item_in_the_documents_is_in_its_file() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for (item, path) in items(&text) {
            let source = fs::read_to_string(repository().join(&path)).unwrap_or_default();
            if !words(&source).any(|word| word == item) {
                missing.push(format!("{document}: `{item}` is not in {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_test_in_the_documents_exists() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for (document, text) in documents() {
        for test in tests_in(&text) {
            count += 1;
            let what = fault(&test)
                .map(|fault| format!("{document}:{}: {} {fault}", test.line, test.path.join("::")));
            faults.extend(what);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 500, "only {count} tests were found in the documents");
}

#[test]
fn a_dead_path_or_test_is_detected() {
    let dead = |text: &str| -> Vec<String> {
        paths(text).into_iter().map(|(_, path)| path).filter(|path| !exists(path)).collect()
    };
    assert_eq!(
        dead("(`User` in src/domain/user.rs), `scripts/test --lib` and [a](../docs/PAGES.md)"),
        [""; 0]
    );
    assert_eq!(dead("src/config/SECTION.rs, templates/pages/*.refused.html, fuzz/artifacts."), [""; 0]);
    assert_eq!(
        dead("in src/store/mails.rs; docs/NOTHING.md, src/nothing/TOPIC.rs"),
        ["src/store/mails.rs", "docs/NOTHING.md", "src/nothing/TOPIC.rs"]
    );

    let named = items("`Accounts::log_in` in src/accounts/log_in.rs and `a` in b");
    assert_eq!(named, [("log_in".to_owned(), "src/accounts/log_in.rs".to_owned())]);

    let faults = |text: &str| tests_in(text).iter().map(fault).collect::<Vec<_>>();
    assert_eq!(
        faults(
            "`it: documents::a_dead_path_or_test_is_detected`, `it: documents::*`, \
             `it: grpc::login::missing_fields_are_named` (both engines), `unit: domain::email::tests::*`, \
             `it: attacks::the_client_is_served_and_the_attacker_is_disconnected::garbage`"
        ),
        [None; 5]
    );
    assert_eq!(
        faults(
            "`it: nothing::a_test`, `it: documents::a_test`, `unit: domain::user::nothing::*`, \
             `it: documents::paths`, `it: documents::every_path_in_the_documents_exists` (both engines)"
        ),
        [
            Some("has no such module"),
            Some("has no such function"),
            Some("has no such module"),
            Some("is no test"),
            Some("runs on one engine"),
        ]
    );
}

/// Returns the quoted texts in the first column of the tables of a document.
fn quoted_messages(document: &str) -> Vec<String> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let first_cells = rows.filter_map(|row| row.split(" | ").next());
    let quoted = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    quoted.collect()
}

#[test]
fn every_message_in_the_troubleshooting_page_is_one_of_the_program() {
    let page = fs::read_to_string(repository().join("docs/troubleshooting.md")).unwrap();
    let mut sources = String::new();
    let list = Command::new("git").args(["ls-files", "src", "proto"]).current_dir(repository()).output();
    for path in String::from_utf8(list.unwrap().stdout).unwrap().lines() {
        // A text that is wrapped in the source is one line for the user.
        let text = fs::read_to_string(repository().join(path)).unwrap().replace("\\\n", "\n");
        sources.push_str(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let messages = quoted_messages(&page);
    assert!(messages.len() > 15, "{messages:?}");
    let unknown: Vec<_> = messages.iter().filter(|message| !sources.contains(message.as_str())).collect();
    assert!(unknown.is_empty(), "no such message: {unknown:?}");
}
