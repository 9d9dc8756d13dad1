//! Errors and help of the commands: an error names the thing, the cause and the way out.

use std::{fs, net::TcpListener, path::Path, process::Command};

use crate::support::{
    engine::{Engine, TestDatabase},
    private_file,
    program::{assert_contains_all, error_line, run, run_in, stdout},
    server::TestServer,
    tls::Certificate,
};

/// Runs the binary in a new folder, where it must fail with this exit code; returns the error line.
#[track_caller]
fn refusal(code: i32, arguments: &[&str]) -> String {
    error_line(code, &run(arguments))
}

#[test]
fn a_malformed_value_in_the_command_line_exits_with_2() {
    let import = ["import", "django", "--from", "sqlite://a", "--follow", "--follow-interval"];
    for (arguments, message_part) in [
        (&["serve", "--listen", "nowhere"][..], "server.listen: expected an address and a port"),
        (&["serve", "--database-url", "mysql://a/b"], "expected sqlite:///folder/file"),
        (&["serve", "--mail-url", "mail.example"], "expected file:///folder"),
        (&["copy", "--from", "mysql://a/b"], "--from: expected sqlite:///folder/file"),
        (&["copy", "--from", "sqlite://a", "--to", "mysql://a/b"], "flag --to"),
        (&["import", "verify", "--from", "mysql://a/b"], "--from: expected sqlite:///folder/file"),
        (&["export", "django", "--to", "mysql://a/b"], "--to: expected sqlite:///folder/file"),
        (
            &[&import[..], &["x"]].concat(),
            "'--follow-interval <SECONDS>': expected a whole number of seconds",
        ),
        (&[&import[..], &["0"]].concat(), "from 1 to 3600"),
        (&["user", "list", "--since", "yesterday"], "'--since <TIME>': expected a time such as"),
        (&["audit", "--until", "soon"], "'--until <TIME>': expected a time such as"),
        (&["user", "show", "a@b@c"], "the email"),
        (&["audit", "--user", "un\u{200b}known"], "the username"),
        (&["caller", "token", "kst_bff"], "must not begin with kst_"),
    ] {
        assert_contains_all(&refusal(2, arguments), &[message_part]);
    }
}

#[test]
fn a_malformed_value_in_a_file_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kairos.toml"), "[server]\nlisten = \"nowhere\"").unwrap();

    let refused = run_in(folder.path(), &["serve", "--config", "kairos.toml"]);

    assert_contains_all(&error_line(1, &refused), &["server.listen: expected an address and a port"]);
}

#[test]
fn the_help_explains_the_exit_codes() {
    let help = stdout(&run(&["--help"]));
    assert_contains_all(&help, &["2 for an invalid command line", "malformed value"]);
}

#[test]
fn no_error_about_a_flag_shows_a_password() {
    for arguments in [
        &["copy", "--from", "mysql://kairos:hunter2@db/x"][..],
        &["import", "verify", "--from", "mysql://kairos:hunter2@db/x"],
        &["serve", "--database-url", "mysql://kairos:hunter2@db/x"],
    ] {
        let refusal = refusal(2, arguments);
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn the_help_of_a_comparison_does_not_describe_an_import() {
    let help = stdout(&run(&["import", "verify", "--help"]));
    assert_contains_all(&help, &["--from <URL>", "--to <URL>", "--secret-key-file <FILE>"]);
    for words in ["to import into", "the import records"] {
        assert!(!help.contains(words), "{words:?}: {help}");
    }
}

#[test]
fn serve_names_a_port_that_is_in_use_and_the_flag_to_choose_another() {
    let other_program = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other_program.local_addr().unwrap().to_string();
    let taken = format!("cannot listen on {address}: another program listens there");

    let grpc = refusal(1, &["serve", "--listen", &address, "--http-listen", "127.0.0.1:0"]);
    assert_contains_all(&grpc, &["server.listen", &taken, "with --listen"]);
    let http = refusal(1, &["serve", "--listen", "127.0.0.1:0", "--http-listen", &address]);
    assert_contains_all(&http, &["http.listen", &taken, "with --http-listen"]);

    let foreign =
        refusal(1, &["serve", "--listen", "127.0.0.1:0", "--http-listen", "[::2]:0", "--insecure-plaintext"]);
    assert_contains_all(&foreign, &["not an address of this machine"]);
}

#[test]
fn serve_names_an_unusable_tls_setting_and_what_its_file_must_contain() {
    let (own, other) = (Certificate::localhost(), Certificate::localhost());
    let (certificate, key) = (own.certificate(), own.key());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let refused = |flags: &[&str]| {
        let ports = ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        refusal(1, &[&ports[..], flags].concat())
    };

    let missing = refused(&["--tls-cert", "missing.pem", "--tls-key", key]);
    assert_contains_all(&missing, &["server.tls-cert: missing.pem", "No such file", "certificate chain"]);
    let swapped = refused(&["--tls-cert", key, "--tls-key", certificate]);
    assert_contains_all(&swapped, &["server.tls-cert", "contains no certificate"]);
    let no_key = refused(&["--tls-cert", certificate, "--tls-key", certificate]);
    assert_contains_all(&no_key, &["server.tls-key", "contains no private key", "name a readable PEM file"]);
    let of_another = refused(&["--tls-cert", certificate, "--tls-key", other.key().to_str().unwrap()]);
    assert_contains_all(&of_another, &["server.tls-cert and server.tls-key", "the key that belongs to it"]);
    let no_authority =
        refused(&["--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", "missing.pem"]);
    assert_contains_all(&no_authority, &["server.tls-client-ca: missing.pem", "No such file"]);
}

#[test]
fn a_missing_database_file_is_named_with_the_command_that_creates_it() {
    let refusal = refusal(1, &["user", "list", "--database-url", "sqlite://missing.sqlite3"]);
    assert_contains_all(&refusal, &["there is no database file missing.sqlite3", "kairos-identity migrate"]);
    assert!(!refusal.contains("not available"), "{refusal}");
}

#[test]
fn a_backup_into_a_missing_folder_names_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run_in(folder.path(), &["migrate"]).status.success());

    let refusal = error_line(1, &run_in(folder.path(), &["backup", "--to", "missing/backup.sqlite3"]));

    let missing = folder.path().canonicalize().unwrap().join("missing");
    let no_folder = format!("there is no folder {}: create it", missing.display());
    assert_contains_all(&refusal, &["missing/backup.sqlite3", &no_folder]);
    assert!(!refusal.contains("not available"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_postgresql_is_reported_with_its_cause() {
    let refusal = refusal(1, &["migrate", "--database-url", "postgres://kairos@127.0.0.1:1/x"]);
    assert_contains_all(&refusal, &["postgres://kairos@127.0.0.1:1/x", "Connection refused"]);
    // The words of the library with the pool: "Error occurred while creating a new object".
    assert!(!refusal.contains("new object"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_healthcheck_names_the_cause_of_a_failed_connection() {
    let refused = refusal(1, &["healthcheck", "--url", "http://127.0.0.1:1"]);
    assert_contains_all(&refused, &["http://127.0.0.1:1: the service does not answer", "Connection refused"]);

    let own = Certificate::localhost();
    let (certificate, key) = (own.certificate(), own.key());
    let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = TestServer::builder(Engine::Sqlite).with_args(&flags).start().await;
    let check = |scheme: &str| {
        let url = format!("{scheme}://{}", server.address());
        error_line(1, &server.command(&["healthcheck", "--url", &url]).output().unwrap())
    };

    let plaintext = check("http");
    assert_contains_all(&plaintext, &["a service with TLS needs an https URL"]);
    let untrusted = check("https");
    assert_contains_all(&untrusted, &["invalid peer certificate"]);
    for refusal in [refused, plaintext, untrusted] {
        assert!(!refusal.contains("transport error"), "{refusal}");
    }
}

on_both_engines! {
    async fn a_copy_names_the_key_file_only_if_its_key_opens_the_source(engine: Engine) {
        let server = TestServer::start(engine).await;
        let key = server.secret_key_file();
        let folder = tempfile::tempdir().unwrap();
        let other_key = folder.path().join("other.key");
        private_file::write(&other_key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
        if let Some(path) = server.database_url().strip_prefix("sqlite://") {
            // The key that a service without `secret.key-file` would use, which this one does not.
            fs::copy(&other_key, format!("{path}.key")).unwrap();
        }
        let copied = |key_file: Option<&Path>| {
            let target = TestDatabase::new(Engine::Sqlite);
            let mut copy = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
            copy.args(["copy", "--from", server.database_url(), "--to", target.url()]).env_clear();
            if let Some(path) = key_file {
                copy.env("KAIROS_IDENTITY_SECRET_KEY_FILE", path);
            }
            let output = copy.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            stdout(&output)
        };

        let named = format!("--secret-key-file {}", key.display());
        assert_contains_all(&copied(Some(&key)), &[&named]);
        for unknown in [copied(Some(&other_key)), copied(None)] {
            assert_contains_all(&unknown, &["the key file of the source (--secret-key-file FILE)"]);
        }
    }
}
