//! The scripts, each copied into a folder in which the programs that it starts are replaced by others.

use std::{
    fs,
    net::TcpListener,
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

/// The part of every script that answers `--help`.
const HELP: &str = "scripts/parts/help.sh";

/// Copies a script into a new folder in which `cargo` is the shell script `cargo`.
fn copy(name: &str, cargo: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in [name, HELP] {
        write_program(&path(name), &fs::read_to_string(repository().join(name)).unwrap());
    }
    write_program(&path("scripts/setup"), "#!/bin/sh\n");
    write_program(&path("bin/cargo"), &format!("#!/bin/sh\n{cargo}\n"));
    folder
}

/// Runs a script of the folder.
fn execute(folder: &TempDir, name: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
    let mut command = Command::new(folder.path().join(name));
    command.args(arguments).env_clear().env("PATH", path).output().unwrap()
}

/// Runs `scripts/run` with these arguments in a new folder.
fn run(arguments: &[&str]) -> (Output, TempDir) {
    let folder = copy("scripts/run", "touch built");
    write_program(&folder.path().join("target/debug/kairos-identity"), "#!/bin/sh\necho started: \"$@\"\n");
    (execute(&folder, "scripts/run", arguments), folder)
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

#[test]
fn a_port_in_use_is_named_before_the_build() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = other.local_addr().unwrap().to_string();
    for flag in ["--listen", "--http-listen", "--telemetry-listen"] {
        let mut ports = vec!["--listen", "127.0.0.1:1", "--http-listen", "", "--telemetry-listen", ""];
        ports.extend([flag, &used]);
        let (output, folder) = run(&ports);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(&format!("{used} is in use")) && error.contains(flag), "{error}");
        assert!(!folder.path().join("built").exists());
    }
}

#[test]
fn the_last_line_of_the_tests_says_how_many_passed() {
    let result = |failed: usize| {
        format!(
            "test result: x. 3 passed; {failed} failed; 1 ignored; 0 measured; 2 filtered out; finished in 1s"
        )
    };
    // Called once to compile, and then three times.
    let cargo = |line: &str, failed: usize, code: i32| {
        let result = result(failed);
        format!("case \"$*\" in *--no-run*) exit 0;; esac\necho '{line}'\necho '{result}'\nexit {code}")
    };
    let passed = execute(&copy("scripts/test", &cargo("test a::b ... ok", 0, 0)), "scripts/test", &[]);
    let text = printed(&passed);
    assert_eq!(text.lines().next_back(), Some("test: 9 passed, 0 failed, 3 skipped"), "{text}");
    assert!(text.contains("the first run compiles everything: about"), "{text}");

    let failed = execute(&copy("scripts/test", &cargo("test a::b ... FAILED", 1, 101)), "scripts/test", &[]);
    let text = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.ends_with("test: failed:\n  a::b\ntest: 9 passed, 3 failed, 3 skipped\n"), "{text}");

    let cargo = "echo 'error: could not compile x' >&2; exit 101";
    let not_compiled = execute(&copy("scripts/test", cargo), "scripts/test", &[]);
    assert_eq!(not_compiled.status.code(), Some(101), "{not_compiled:?}");
}

#[test]
fn the_program_for_production_has_its_symbols_in_a_file_beside_it() {
    let cargo = "echo \"$@\" >arguments; mkdir -p target/release; \
                 echo 'int main() { return 0; }' | cc -g -x c -o target/release/kairos-identity -";
    let folder = copy("scripts/build-release", cargo);
    printed(&execute(&folder, "scripts/build-release", &[]));
    let path = |name: &str| folder.path().join(name);
    let arguments = fs::read_to_string(path("arguments")).unwrap();
    assert!(arguments.contains("--release") && arguments.contains("--locked"), "{arguments}");
    let program = path("target/package/kairos-identity");
    assert!(Command::new(&program).status().unwrap().success());
    let bytes = fs::read(&program).unwrap();
    let link = b"kairos-identity.debug\0";
    assert!(bytes.windows(link.len()).any(|part| part == link), "no link to the symbols");
    assert!(path("target/package/kairos-identity.debug").exists());
}
