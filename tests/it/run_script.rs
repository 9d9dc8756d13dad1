//! `scripts/run`, copied into a folder in which the programs that it starts are replaced by stubs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::tools::repository;

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script with these arguments in a new folder.
fn run(arguments: &[&str]) -> (Output, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = fs::read_to_string(repository().join("scripts/run")).unwrap();
    write_program(&path("scripts/run"), &script);
    write_program(&path("scripts/setup"), "#!/bin/sh\n");
    write_program(&path("bin/cargo"), "#!/bin/sh\ntouch built\n");
    write_program(&path("target/debug/kairos-identity"), "#!/bin/sh\necho started: \"$@\"\n");
    let output = Command::new(path("scripts/run"))
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", path("bin").display()))
        .output()
        .unwrap();
    (output, folder)
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_is_printed_without_a_build() {
    for flag in ["--help", "-h"] {
        let (output, folder) = run(&["--listen", "127.0.0.1:1", flag]);
        let help = printed(&output);
        assert!(help.contains("scripts/run --listen") && help.contains("docs/CONFIG.md"), "{help}");
        assert!(!help.contains("set -euo") && !help.contains("started:"), "{help}");
        assert!(!folder.path().join("built").exists());
    }
}

#[test]
fn the_banner_shows_how_to_call_the_service_with_and_without_tls() {
    let ports =
        ["--listen", "127.0.0.1:1", "--http-listen", "127.0.0.1:2", "--telemetry-listen", "127.0.0.1:3"];
    let (output, _folder) = run(&ports);
    let plain = printed(&output);
    assert!(plain.contains("grpcurl -plaintext 127.0.0.1:1 list"), "{plain}");
    assert!(plain.contains("http://127.0.0.1:2") && plain.contains("started: serve --listen"), "{plain}");

    let (output, _folder) = run(&[&ports[..], &["--tls-cert", "a.pem", "--tls-key", "b.pem"]].concat());
    let tls = printed(&output);
    assert!(
        tls.contains("grpcurl -insecure 127.0.0.1:1 list") && tls.contains("https://127.0.0.1:2"),
        "{tls}"
    );
    assert!(tls.contains("a.pem") && !tls.contains("-plaintext"), "{tls}");
}
