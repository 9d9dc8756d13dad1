//! `kairos-identity caller`: changes the callers file that a running service reads.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use kairos_identity::proto::{ResolveTokensRequest, identity_service_client::IdentityServiceClient};
use tempfile::TempDir;
use tonic::Code;

use crate::support::{
    engine::Engine,
    program::{stderr, stdout},
    server::TestServer,
    wait::until,
};

/// Longer than the interval (2 s) at which the service reads the file.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

const OTHER_CALLER: &str = "# Kept by hand.\n[other]\ntoken-hashes = [\"sha256:46d0ec6ac7b3bd4b5f1e8b2a4c9cbb07a4a86f7d9f7e1b8ad1a3a2c5e1c0d9f8\"] # May\nmethods = []\nuser-fields = []\n";

fn caller(file: &Path, arguments: &[&str], output: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.arg("caller").args(arguments).arg("--callers").arg(file).env_clear();
    command.stdout(output).stderr(Stdio::piped()).output().unwrap()
}

/// Runs a command that must succeed, and returns what it prints.
fn done(file: &Path, arguments: &[&str]) -> String {
    let output = caller(file, arguments, Stdio::piped());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).trim_end().to_owned()
}

/// Returns the error of a command that must fail and change nothing.
fn refused(file: &Path, arguments: &[&str], output: impl Into<Stdio>) -> String {
    let before = fs::read_to_string(file).ok();
    let output = caller(file, arguments, output);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(file).ok(), before, "the file is unchanged");
    stderr(&output)
}

fn new_file(text: &str) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callers.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    (folder, file)
}

/// Returns the code of a look-up with this token.
async fn look_up(server: &TestServer, token: &str) -> Code {
    let value: tonic::metadata::MetadataValue<_> = token.parse().unwrap();
    let with_token = move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("kairos-caller-token", value.clone());
        Ok(request)
    };
    let mut client = IdentityServiceClient::with_interceptor(server.channel().await, with_token);
    let auth_tokens = vec![uuid::Uuid::from_u128(1).to_string()];
    let answer = client.resolve_tokens(ResolveTokensRequest { auth_tokens }).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_follows_the_callers_that_the_command_adds_rotates_and_removes() {
    let (_folder, file) = new_file(OTHER_CALLER);
    let server = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_CALLERS_FILE", file.to_str().unwrap())
        .start()
        .await;
    let answers = async |token: &str, code: Code| {
        until("the service follows the file", RELOAD_LIMIT, async || {
            (look_up(&server, token).await == code).then_some(())
        })
        .await;
    };

    let first = done(&file, &["add", "agent", "--role", "agent"]);
    answers(&first, Code::Ok).await;
    let second = done(&file, &["rotate", "agent"]);
    answers(&second, Code::Ok).await;
    assert_eq!(look_up(&server, &first).await, Code::Ok, "both tokens are valid");
    assert!(refused(&file, &["rotate", "agent"], Stdio::piped()).contains("--finish"));
    done(&file, &["rotate", "agent", "--finish"]);
    answers(&first, Code::Unauthenticated).await;
    assert_eq!(look_up(&server, &second).await, Code::Ok);
    let listed = done(&file, &["list"]);
    assert!(listed.starts_with("other\t1\t0\t\t\n"), "no method and no field: {listed}");
    assert!(listed.contains("agent\t1\t0\tIdentityService/ResolveToken "), "{listed}");
    done(&file, &["remove", "agent"]);
    answers(&second, Code::Unauthenticated).await;

    assert_eq!(fs::read_to_string(&file).unwrap(), OTHER_CALLER, "comments and other entries stay");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_file_that_the_service_would_refuse_is_listed_with_the_reason() {
    let (_folder, file) = new_file(&OTHER_CALLER.replace("methods = []", "methods = [\"NoService/*\"]"));
    let output = caller(&file, &["list"], Stdio::piped());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).starts_with("other\t1\t0\tNoService/*\t\n"), "{}", stdout(&output));
    assert!(stderr(&output).contains("caller other: methods"), "{}", stderr(&output));
}

#[test]
fn a_token_that_cannot_be_printed_leaves_the_file_as_it_was() {
    let (_folder, file) = new_file(OTHER_CALLER);
    for arguments in [&["add", "bff", "--role", "bff"][..], &["rotate", "other"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let error = refused(&file, arguments, writer);
        assert!(error.contains("the callers file was not changed"), "{error}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = refused(&file, arguments, full);
        assert!(error.contains("the callers file was not changed"), "{error}");
    }
    let pipe = file.with_file_name("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output = caller(&pipe, &["add", "bff", "--role", "bff"], Stdio::piped());
    assert!(stderr(&output).contains("not a regular file"), "{output:?}");
    let missing = file.with_file_name("new.toml");
    let full = File::options().write(true).open("/dev/full").unwrap();
    refused(&missing, &["add", "bff", "--role", "bff"], full);
    assert!(!missing.exists());
}

/// A removed caller must not return because another command had read the file before.
#[test]
fn a_token_is_not_printed_to_an_output_that_is_closed_or_null() {
    let (folder, file) = new_file("");
    fs::remove_file(&file).unwrap();
    for output in [">&-", ">/dev/null"] {
        let script = format!("\"$0\" caller add bff --role bff --callers callers.toml {output}");
        let program = env!("CARGO_BIN_EXE_kairos-identity");
        let mut shell = Command::new("sh");
        let refused = shell.args(["-c", &script, program]).current_dir(&folder).env_clear().output().unwrap();
        assert_eq!(
            stderr(&refused).trim_end(),
            "error: standard output is closed or /dev/null: the secret would be lost: the callers file was not changed"
        );
        assert_eq!(refused.status.code(), Some(1));
        assert!(!file.exists(), "{output}");
    }
}

#[test]
fn a_callers_file_in_a_missing_folder_names_the_folder() {
    let (folder, _file) = new_file("");
    let missing = folder.path().join("missing");
    let refused = caller(&missing.join("callers.toml"), &["add", "bff", "--role", "bff"], Stdio::piped());
    assert_eq!(refused.status.code(), Some(1));
    let refusal = stderr(&refused);
    assert!(refusal.contains(&format!("not changed: there is no folder {}", missing.display())), "{refusal}");
}

#[test]
fn commands_at_the_same_time_lose_no_change() {
    let (_folder, file) = new_file(OTHER_CALLER);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let file = &file;
            scope.spawn(move || {
                let [kept, removed] = ["kept", "removed"].map(|name| format!("{name}{number}"));
                done(file, &["add", &kept, "--role", "agent"]);
                done(file, &["add", &removed, "--role", "bff"]);
                done(file, &["rotate", &kept]);
                done(file, &["remove", &removed]);
            });
        }
    });
    let listed = done(&file, &["list"]);
    let mut names: Vec<&str> = listed.lines().map(|line| line.split('\t').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["kept0", "kept1", "kept2", "kept3", "kept4", "kept5", "other"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

    // While a file is changed, others wait.
    let held = File::open(&file).unwrap();
    held.lock().unwrap();
    let waiting = file.clone();
    let remove = std::thread::spawn(move || done(&waiting, &["remove", "kept0"]));
    std::thread::sleep(Duration::from_millis(300));
    fs::write(&file, fs::read_to_string(&file).unwrap() + "\n# Added meanwhile.\n").unwrap();
    drop(held);
    remove.join().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("# Added meanwhile.") && !text.contains("[kept0]"), "{text}");
}

#[test]
fn each_role_is_written_into_the_file_and_a_mistake_changes_nothing() {
    let (_folder, file) = new_file(OTHER_CALLER);
    for role in ["bff", "agent", "operator", "monitor"] {
        let token = done(&file, &["add", role, "--role", role]);
        assert!(token.starts_with("kst_") && token.len() == 47, "{token}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.contains(&format!("[{role}]\ntoken-hashes = [\"sha256:")) && !text.contains(&token),
            "{text}"
        );
    }
    assert!(
        refused(&file, &["add", "bff", "--role", "bff"], Stdio::piped()).contains("already has a caller bff")
    );
    assert!(refused(&file, &["remove", "nosuch"], Stdio::piped()).contains("has no caller nosuch"));
    assert!(refused(&file, &["rotate", "nosuch"], Stdio::piped()).contains("has no caller nosuch"));
    let absent = file.with_file_name("absent.toml");
    for arguments in [&["remove", "bff"][..], &["rotate", "bff"], &["rotate", "bff", "--finish"]] {
        assert!(
            refused(&absent, arguments, Stdio::piped()).contains("absent.toml: No such file"),
            "{arguments:?}"
        );
    }
    let wrong_role = caller(&file, &["add", "x", "--role", "admin"], Stdio::piped());
    assert_eq!(wrong_role.status.code(), Some(2));
    assert!(stderr(&wrong_role).contains("bff, agent, operator, monitor"), "{}", stderr(&wrong_role));
    fs::write(&file, "[broken").unwrap();
    assert!(refused(&file, &["add", "bff", "--role", "bff"], Stdio::piped()).contains("not TOML"));
}
