//! Generates `docs/CONFIG.md` from the declarations of the settings. A test compares the file with them.

use std::{fmt::Write, fs, path::Path};

use super::section_list::sections;

/// Returns the text of `docs/CONFIG.md`.
fn reference_page() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Every setting has a key in one TOML file (`--config FILE`, or the variable `KAIROS_IDENTITY_CONFIG`)\n\
         and an environment variable. Some also have a flag: see `kairos-identity serve --help`. Flags\n\
         override variables, variables override the file, and the file overrides the defaults. A URL in a flag\n\
         or variable also overrides a `url-file` in the file, and the other way round. An unknown key or\n\
         variable, or an invalid value, makes the start fail. `kairos-identity serve --print-config` prints the\n\
         settings in force, with the source of each and without passwords. A relative path begins at the\n\
         current folder of the process, also in the file.\n\n\
         This page is generated from `src/config` by `UPDATE_DOCS=1 cargo test config::reference`.\n",
    );
    for (about, settings) in sections() {
        let section = settings[0].section;
        let _ = write!(text, "\n## `[{section}]`\n\n{}\n", joined(about));
        for setting in settings {
            let default = if setting.default.is_empty() { "unset" } else { setting.default };
            let _ = write!(
                text,
                "\n### `{}`\n\n{}\n\n- default: `{default}`\n- expects: {}\n- variable: `{}`\n",
                setting.key(),
                joined(setting.about),
                (setting.expects)(),
                setting.variable()
            );
        }
    }
    text
}

/// Joins the lines of a doc comment into one line.
fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "an environment variable decides whether the test writes the file"
)]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    if std::env::var("UPDATE_DOCS").is_ok() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, reference_page()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference_page(),
        "docs/CONFIG.md is out of date: run `UPDATE_DOCS=1 cargo test config::reference`"
    );
}
