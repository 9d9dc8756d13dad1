//! `docs/CONFIG.md`, made from the declarations, so that it cannot tell anything else.

use std::{fmt::Write, fs, path::Path};

use super::sections;

fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Every setting has a key in one TOML file (`--config FILE`, or the variable `KAIROS_IDENTITY_CONFIG`) and a variable of\n\
         the environment; some have a flag, which `kairos-identity serve --help` shows. Flags win over variables, variables over\n\
         the file, and the file over the defaults. An unknown key or variable, or a value that is not what was expected, stops\n\
         the start. `kairos-identity serve --print-config` prints what is in force, and who set it, without passwords.\n\n\
         This page is made from `src/config`: `UPDATE_DOCS=1 cargo test config::reference`.\n",
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

/// The lines of a doc comment as one.
fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever runs the test says whether it writes")]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    if std::env::var("UPDATE_DOCS").is_ok() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, reference()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/CONFIG.md is old: run `UPDATE_DOCS=1 cargo test config::reference`"
    );
}
