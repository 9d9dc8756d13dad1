//! Reads the paths in Rust sources, without a parser: rustfmt has laid them out.

use std::{fs, path::PathBuf};

use super::tools::repository;

/// One name that a `use` item brings into scope.
pub struct Use {
    pub line: usize,
    /// True for `pub use` and `pub(...) use`.
    pub is_public: bool,
    pub path: String,
    /// The last step of the path, or the name after `as`.
    pub name: String,
}

/// Returns the lines of code that are not in a `#[cfg(test)]` item, with their numbers and without comments.
pub fn without_tests(source: &str) -> Vec<(usize, &str)> {
    let mut code = Vec::new();
    let mut lines = source.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // rustfmt indents the last line of an item like its first line.
            let depth = line.len() - line.trim_start().len();
            lines.find(|(_, line)| {
                let is_as_deep = line.get(depth..).is_some_and(|rest| !rest.starts_with(' '));
                is_as_deep && line.ends_with(['}', ';'])
            });
        } else if !line.trim_start().starts_with("//") {
            code.push((number, line.split(" // ").next().unwrap_or_default()));
        }
    }
    code
}

/// Returns every path in these lines with its line number; the trees of `use` items are expanded.
pub fn paths(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let used = uses(lines).into_iter().map(|item| (item.line, item.path));
    used.chain(words(lines).into_iter().filter(|(_, word)| word.contains("::"))).collect()
}

/// Returns the words in these lines outside of `use` and `mod` items, with their line numbers. A path is one
/// word.
pub fn words(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let (_, code) = split(lines);
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '$');
    let code = code.into_iter().map(|(number, line)| (number, without_visibility(line)));
    let code = code.filter(|(_, line)| !(line.ends_with(';') && line.split(' ').any(|word| word == "mod")));
    let words = code.flat_map(|(number, line)| line.split(|c| !is_part(c)).map(move |word| (number, word)));
    let words = words.map(|(number, word)| (number, word.trim_matches(':').to_owned()));
    words.filter(|(_, word)| !word.is_empty()).collect()
}

/// Returns the line without `pub(in PATH)`.
fn without_visibility(line: &str) -> &str {
    let rest = line.trim().strip_prefix("pub(in ").and_then(|rest| rest.split_once(')'));
    rest.map_or(line, |(_, rest)| rest)
}

/// Returns the names that the `use` items in these lines bring into scope.
pub fn uses(lines: &[(usize, &str)]) -> Vec<Use> {
    let (items, _) = split(lines);
    let expanded = items.into_iter().flat_map(|(line, is_public, tree)| {
        let mut found = Vec::new();
        expand_use("", tree.trim_end_matches(';'), &mut found);
        found.into_iter().map(move |(path, name)| Use { line, is_public, path, name })
    });
    expanded.collect()
}

/// A `use` item: its line, whether it is public, and its tree with the final semicolon.
type UseItem = (usize, bool, String);

/// Separates the `use` items from the other lines.
fn split<'a>(lines: &[(usize, &'a str)]) -> (Vec<UseItem>, Vec<(usize, &'a str)>) {
    let (mut items, mut code) = (Vec::new(), Vec::new());
    let mut lines = lines.iter();
    while let Some((number, line)) = lines.next() {
        let Some(tree) = after_use(line) else {
            code.push((*number, *line));
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(lines.next().expect("a use item ends with a semicolon").1.trim());
        }
        items.push((*number, line.trim().starts_with("pub"), tree));
    }
    (items, code)
}

/// Returns the text after `use`, `pub use` or `pub(...) use`.
fn after_use(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => line,
    };
    line.strip_prefix("use ")
}

/// Expands a `use` tree: `a::{b, c::{d, e as f}}` becomes `a::b`, `a::c::d` and `a::c::e`, each with the name
/// that it brings into scope: `b`, `d` and `f`.
fn expand_use(prefix: &str, tree: &str, found: &mut Vec<(String, String)>) {
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
                        expand_use(&format!("{prefix}{head}"), inner.trim_end_matches('}'), found);
                    }
                    None if item.is_empty() => {}
                    None => {
                        let (path, alias) = item.split_once(" as ").unwrap_or((item, ""));
                        let path = format!("{prefix}{path}");
                        let path = path.strip_suffix("::self").unwrap_or(&path);
                        let last = path.rsplit("::").next().unwrap_or_default();
                        let name = if alias.is_empty() { last } else { alias };
                        found.push((path.to_owned(), name.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Returns each source file except tests, `lib.rs` and `main.rs`: its path relative to `src`, and its full
/// path.
pub fn sources() -> Vec<(String, PathBuf)> {
    let root = repository().join("src");
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if !["lib.rs", "main.rs"].contains(&name.as_str()) {
                files.push((name, path));
            }
        }
    }
    files
}
