//! Checks that no two files of `src` import each other: reads the paths in the sources and resolves each to
//! the file that declares the item.
//!
//! A `mod.rs` that re-exports an item of a child does not import the child by that, unless its own code uses
//! the item too.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use crate::support::rust_source::{Use, sources, uses, without_tests, words};

/// A module path without `crate`: `["grpc", "layer"]` for `grpc/layer/mod.rs`.
type Module = Vec<String>;

/// A source file.
struct File {
    /// The path relative to `src`.
    path: String,
    module: Module,
    uses: Vec<Use>,
    /// Paths and single words in the code outside of `use` items, with their line numbers.
    code: Vec<(usize, String)>,
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        let names = path.trim_end_matches(".rs").split('/').filter(|name| *name != "mod");
        let lines = without_tests(source);
        let (uses, code) = (uses(&lines), words(&lines));
        Self { path: path.to_owned(), module: names.map(str::to_owned).collect(), uses, code }
    }
}

/// All source files, by module.
struct Tree(HashMap<Module, File>);

impl Tree {
    fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files.into_iter().map(|(path, source)| File::new(path, source));
        Self(files.map(|file| (file.module.clone(), file)).collect())
    }

    /// Returns `path`, as `file` uses it, from the root of the crate; `None` for a library or a local name.
    fn absolute(&self, file: &File, path: &str) -> Option<Module> {
        let steps: Vec<&str> = path.split("::").collect();
        let (mut module, rest) = match *steps.first()? {
            "crate" | "$crate" => (Module::new(), &steps[1..]),
            "self" => (file.module.clone(), &steps[1..]),
            "super" => {
                let up = steps.iter().take_while(|step| **step == "super").count();
                (file.module[..file.module.len().checked_sub(up)?].to_vec(), &steps[up..])
            }
            first => {
                let imported = file.uses.iter().find(|item| item.name == first && item.path != path);
                match imported.filter(|item| !item.path.starts_with(first)) {
                    Some(item) => (self.absolute(file, &item.path)?, &steps[1..]),
                    None if self.0.contains_key(&child(&file.module, first)) => {
                        (file.module.clone(), &steps[..])
                    }
                    None => return None,
                }
            }
        };
        module.extend(rest.iter().map(|step| (*step).to_owned()));
        Some(module)
    }

    /// Returns the file that declares the item at an absolute path. Follows re-exports.
    fn declaring_file(&self, path: &[String]) -> Option<&File> {
        let depth = (1..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth]))?;
        let file = &self.0[&path[..depth]];
        let Some(item) = path.get(depth) else { return Some(file) };
        let imported = file.uses.iter().find(|import| import.name == *item);
        let target = imported.and_then(|import| self.absolute(file, &import.path));
        match target.filter(|target| target[..] != path[..=depth]) {
            Some(target) => self.declaring_file(&target).or(Some(file)),
            None => Some(file),
        }
    }

    /// Returns the paths of the files that `file` imports, each with one place where it does.
    fn imports(&self, file: &File) -> BTreeMap<String, String> {
        let is_used = |name: &str| file.code.iter().any(|(_, path)| path.split("::").next() == Some(name));
        let is_mod = file.path.ends_with("mod.rs");
        let items = file.uses.iter().filter(|item| !(is_mod && item.is_public) || is_used(&item.name));
        let items = items.map(|item| (item.line, &item.path));
        let code = file.code.iter().filter(|(_, path)| path.contains("::"));
        let mut found = BTreeMap::new();
        for (line, path) in items.chain(code.map(|(line, path)| (*line, path))) {
            let target = self.absolute(file, path).and_then(|path| self.declaring_file(&path));
            if let Some(target) = target.filter(|target| target.path != file.path) {
                let place = format!("{}:{line} uses {path}", file.path);
                found.entry(target.path.clone()).or_insert(place);
            }
        }
        found
    }

    /// Returns each pair of files that import each other, with one place in each.
    fn circles(&self) -> BTreeMap<(String, String), String> {
        let imports: BTreeMap<_, _> =
            self.0.values().map(|file| (file.path.clone(), self.imports(file))).collect();
        let mut circles = BTreeMap::new();
        for (file, targets) in &imports {
            for (target, place) in targets.iter().filter(|(target, _)| file < *target) {
                if let Some(back) = imports.get(target).and_then(|targets| targets.get(file)) {
                    circles.insert((file.clone(), target.clone()), format!("{place}; {back}"));
                }
            }
        }
        circles
    }
}

fn child(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

#[test]
fn no_two_files_import_each_other() {
    let read = |(name, path)| (name, fs::read_to_string(path).unwrap());
    let files: Vec<(String, String)> = sources().into_iter().map(read).collect();
    let tree = Tree::new(files.iter().map(|(name, source)| (name.as_str(), source.as_str())));

    let circles = tree.circles();

    let found: Vec<_> = circles.iter().map(|((one, other), at)| format!("{one} <-> {other}: {at}")).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_is_detected() {
    for files in [
        [
            ("mail/smtp.rs", "use super::transport::MailError;"),
            ("mail/transport.rs", "use super::smtp::Smtp;"),
        ],
        [
            ("mail/smtp.rs", "use crate::{\n    clock::Clock,\n};"),
            ("clock.rs", "    crate::mail::smtp::Smtp::new()"),
        ],
        // A name that the module imports.
        [("a/one.rs", "use super::two;"), ("a/two.rs", "use crate::a::one::{self as first, One as First};")],
        [("a/one.rs", "use crate::b;\nfn f() -> b::two::Two;"), ("b/two.rs", "use crate::a::one::One;")],
        // An item that the mod.rs defines, by each way in which it can use the child.
        [("a/mod.rs", "mod one;\nuse self::one::One;"), ("a/one.rs", "use super::Item;")],
        [("a/mod.rs", "mod one;\nfn f() {\n    one::run();\n}"), ("a/one.rs", "use super::Item;")],
        [("a/mod.rs", "pub use self::one::One;\nstruct Item(One);"), ("a/one.rs", "use super::Item;")],
        // In a macro.
        [("a/one.rs", "macro_rules! m {\n    $crate::c::C;\n}"), ("c.rs", "use crate::a::one::m;")],
    ] {
        let others = [("a/mod.rs", ""), ("b/mod.rs", ""), ("mail/mod.rs", "")];
        let others = others.into_iter().filter(|(path, _)| !files.iter().any(|(file, _)| file == path));
        let files: Vec<_> = files.into_iter().chain(others).collect();
        assert_eq!(Tree::new(files.iter().copied()).circles().len(), 1, "{files:?}");
    }
}

#[test]
fn a_re_export_is_followed_to_the_file_that_declares_the_item() {
    let files = |a: &'static str| {
        [("a/mod.rs", a), ("a/one.rs", "use crate::b::B;"), ("b.rs", "use crate::a::Alias;")]
    };
    let circles = |a| Tree::new(files(a)).circles().into_keys().collect::<Vec<_>>();
    for a in ["pub use self::one::One as Alias;", "pub use self::{\n    one::{Alias, One},\n};"] {
        assert_eq!(circles(a), [("a/one.rs".to_owned(), "b.rs".to_owned())], "{a}");
    }
    assert!(circles("pub use self::one::One;\nstruct Alias;").is_empty(), "a/mod.rs declares it");
}

#[test]
fn an_import_in_one_direction_is_no_circle() {
    for files in [
        [("a/one.rs", "use super::two::Two;"), ("a/two.rs", "use std::fs;")],
        [("a/mod.rs", "mod one;\npub use self::one::One;\nstruct Item;"), ("a/one.rs", "use super::Item;")],
        [
            ("a/one.rs", "use super::two::Two;"),
            ("a/two.rs", "// as in super::one::One\npub(in super::one) fn f();"),
        ],
        [
            ("a/one.rs", "use super::two::Two;"),
            ("a/two.rs", "#[cfg(test)]\nmod tests {\n    use super::one::One;\n}"),
        ],
    ] {
        let others =
            [("a/mod.rs", "")].into_iter().filter(|(path, _)| !files.iter().any(|(file, _)| file == path));
        let files: Vec<_> = files.into_iter().chain(others).collect();
        assert!(Tree::new(files.iter().copied()).circles().is_empty(), "{files:?}");
    }
}
