//! What `serve` checks before it writes anything, and the environment and the files that it refuses.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::support::{
    callers::{CallersFile, token},
    daemon::free_port,
    engine::Engine,
    private_file,
    program::{assert_contains_all, error_line, run, run_in, stderr, stdout},
    server::TestServer,
    tls::Certificate,
};

/// The command `serve` on two free ports.
const SERVE: [&str; 7] =
    ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--telemetry-listen", "127.0.0.1:0"];

/// Runs `serve` in `folder`, where it must fail; returns the error line.
#[track_caller]
fn refused(folder: &Path, flags: &[&str]) -> String {
    error_line(1, &run_in(folder, &[&SERVE[..], flags].concat()))
}

/// Runs `serve --print-config` with these variables.
fn with_variables(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(["serve", "--print-config"]).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// Returns the names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn the_variables_of_a_kubernetes_service_are_ignored() {
    let address = "tcp://10.96.0.7:50051";
    let output = with_variables(&[
        ("KAIROS_IDENTITY_SERVICE_HOST", "10.96.0.7"),
        ("KAIROS_IDENTITY_SERVICE_PORT", "50051"),
        ("KAIROS_IDENTITY_SERVICE_PORT_GRPC", "50051"),
        ("KAIROS_IDENTITY_PORT", address),
        ("KAIROS_IDENTITY_PORT_50051_TCP", address),
        ("KAIROS_IDENTITY_PORT_50051_TCP_ADDR", "10.96.0.7"),
        ("KAIROS_IDENTITY_PORT_50051_TCP_PROTO", "tcp"),
        ("KAIROS_IDENTITY_PORT_50051_TCP_PORT", "50051"),
        ("KAIROS_IDENTITY_PORT_53_UDP_ADDR", "10.96.0.7"),
        ("KAIROS_IDENTITY_PAGES_SERVICE_HOST", "10.96.0.8"),
        ("KAIROS_IDENTITY_PAGES_PORT", "tcp://10.96.0.8:80"),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_misspelt_variable_is_refused_and_one_with_a_misspelt_prefix_is_warned_of() {
    let unknown = error_line(1, &with_variables(&[("KAIROS_IDENTITY_SERVER_PORT", "50051")]));
    assert_contains_all(&unknown, &["KAIROS_IDENTITY_SERVER_PORT is not a setting"]);
    // Kubernetes sets an address (tcp://...): this one is of an operator.
    let port = error_line(1, &with_variables(&[("KAIROS_IDENTITY_PORT", "50051")]));
    assert_contains_all(&port, &["KAIROS_IDENTITY_PORT is not a setting"]);
    let warned = with_variables(&[("KAIROS_IDENTIY_LOG_LEVEL", "debug"), ("KAIROS_AGENT_URL", "x")]);
    assert!(warned.status.success(), "{warned:?}");
    assert_contains_all(
        &stderr(&warned),
        &["KAIROS_IDENTIY_LOG_LEVEL", "did you mean KAIROS_IDENTITY_LOG_LEVEL?"],
    );
    assert!(!stderr(&warned).contains("KAIROS_AGENT_URL"), "{warned:?}");
}

#[test]
fn all_findings_are_reported_at_once_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let arguments =
        ["serve", "--listen", &address, "--http-listen", "127.0.0.1:0", "--callers", "callers.toml"];
    let error = error_line(1, &run_in(folder.path(), &arguments));

    let found = [
        "4 findings: (1)",
        "callers.file: callers.toml (/",
        "No such file",
        "another program listens there",
        "mail.url: mails cannot be written to data/mail: ",
        "data is not a folder",
        "database.url: cannot create data/kairos-identity.sqlite3",
    ];
    assert_contains_all(&error, &found);
    assert!(!error.contains("os error"), "{error}");
    assert_eq!(names(folder.path()), ["data"]);
}

#[test]
fn a_malformed_value_hides_no_other_finding() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!(
        "[server]\nlisten = \"{address}\"\nthreads = \"many\"\n[http]\nlisten = \"127.0.0.1:0\"\n[sesion]\nidle = \"1h\"\n\
         [callers]\nfile = \"callers.toml\"\n[pages]\ntemplates = \"none\"\n[login]\nwait-first = \"2h\"\n"
    );
    fs::write(folder.path().join("k.toml"), &text).unwrap();
    let in_file = [
        "server.threads: expected",
        "sesion.idle is not a setting",
        "login.wait-first must not be longer than login.wait-max",
        "another program listens there",
        "callers.file: callers.toml",
        "pages.templates: ",
    ];
    let of_defaults = ["mail.url: mails cannot be written", "database.url: cannot create"];

    let refused = error_line(1, &run_in(folder.path(), &["serve", "--config", "k.toml"]));
    assert_contains_all(&refused, &in_file);
    assert_contains_all(&refused, &of_defaults);
    assert_eq!(names(folder.path()), ["data", "k.toml"]);

    // What depends on a setting without a valid value is not checked with its default.
    let flags = ["serve", "--config", "k.toml", "--database-url", "mysql://a@b/c", "--mail-url", "mail"];
    let refused = error_line(2, &run_in(folder.path(), &flags));
    assert_contains_all(&refused, &in_file);
    assert_contains_all(&refused, &["database.url: expected", "mail.url: expected"]);
    assert!(of_defaults.iter().all(|finding| !refused.contains(finding)), "{refused}");

    // The command that checks everything says what it could not check.
    let checked = run_in(folder.path(), &["doctor", "--config", "k.toml", "--database-url", "mysql://a@b/c"]);
    assert_contains_all(&stdout(&checked), &in_file);
    let not_checked = "database\twarning\tnot checked, since the value of database.url is not known";
    assert_contains_all(&stdout(&checked), &[not_checked, "ports\tfailed\t", "mail\tfailed\t"]);
}

#[test]
fn an_empty_name_of_the_settings_file_is_refused() {
    let unnamed = error_line(1, &with_variables(&[("KAIROS_IDENTITY_CONFIG", "")]));
    assert_contains_all(&unnamed, &["name of the settings file is empty", "variable KAIROS_IDENTITY_CONFIG"]);
}

#[test]
fn each_file_that_is_missing_is_named_although_others_are_missing_too() {
    let folder = tempfile::tempdir().unwrap();
    let all = [
        "--tls-cert",
        "c.pem",
        "--tls-key",
        "k.pem",
        "--tls-client-ca",
        "ca.pem",
        "--secret-key-file",
        "s.key",
    ];
    let missing = [
        "server.tls-cert: c.pem",
        "server.tls-key: k.pem",
        "server.tls-client-ca: ca.pem",
        "secret.key-file: ",
    ];
    fs::write(folder.path().join("bad.db"), "no database").unwrap();
    for database in ["sqlite://bad.db", "sqlite://new.db", "mysql://a@b/c"] {
        let arguments = [&["serve", "--database-url", database], &all[..]].concat();
        let code = if database.starts_with("mysql") { 2 } else { 1 };
        let refused = error_line(code, &run_in(folder.path(), &arguments));
        assert_contains_all(&refused, &missing);
        assert_eq!(refused.matches("secret.key-file: ").count(), 1, "{refused}");
        let arguments = [&["doctor", "--database-url", database], &all[..]].concat();
        assert_contains_all(&stdout(&run_in(folder.path(), &arguments)), &missing[..3]);
    }
    // One of two that depend on each other.
    let checked = stdout(&run_in(folder.path(), &["doctor", "--tls-cert", "c.pem"]));
    assert_contains_all(&checked, &["certificates\tfailed\tserver.tls-cert: c.pem"]);
}

#[test]
fn a_start_that_fails_anyhow_does_not_wait_for_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres://ada@127.0.0.1:{}/x", free_port());
    let mut command = Command::new("timeout");
    command.args(["30", env!("CARGO_BIN_EXE_kairos-identity"), "serve", "--database-url", &url]).env_clear();
    command.args(["--callers", "callers.toml"]).env("KAIROS_IDENTITY_MAIL_TIMEOUT", "30");
    command.env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "10m").current_dir(folder.path());
    let refused = error_line(1, &command.output().unwrap());
    assert_contains_all(&refused, &["mail.timeout: expected", "callers.file: ", "no program listens there"]);
}

#[test]
fn a_password_in_a_settings_file_that_others_may_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k.toml");
    fs::write(&file, "[mail]\nurl = \"smtp://ada:hunter2@mail.example\"\n").unwrap();
    for (mode, is_warned) in [(0o644, true), (0o640, true), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let printed = run_in(folder.path(), &["serve", "--print-config", "--config", "k.toml"]);
        let warning = "mail.url has a password, and other users may read k.toml";
        assert_eq!(stderr(&printed).contains(warning), is_warned, "{printed:?}");
        assert!(!stderr(&printed).contains("hunter2"), "{printed:?}");
    }
}

#[test]
fn a_port_is_checked_although_another_one_is_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!("[server]\nlisten = \"{address}\"\nlistn = \"x\"\n[http]\nlisten = \"bad\"\n");
    fs::write(folder.path().join("k.toml"), text).unwrap();
    let checked = stdout(&run_in(folder.path(), &["doctor", "--config", "k.toml"]));
    assert_contains_all(
        &checked,
        &["another program listens there", "not checked, since the value of http.listen is not known"],
    );
    assert!(!checked.contains("since the value of server.listen"), "{checked}");
}

#[test]
fn a_section_that_is_no_table_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("k.toml"), "log = 3\n[[server]]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let refused = error_line(1, &run_in(folder.path(), &["serve", "--config", "k.toml"]));
    assert_contains_all(
        &refused,
        &[
            "server: expected the section [server], not a list",
            "log: expected the section [log], not a number",
        ],
    );
}

#[test]
fn a_port_in_use_is_found_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    error_line(1, &run_in(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--http-listen", &address]));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn contradicting_settings_are_refused_with_both_values_and_their_sources() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("k.toml"), "[session]\nidle = \"1h\"\n[mail]\nretry-max = \"1s\"\n")
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
    command.args(["serve", "--config", "k.toml", "--listen", "127.0.0.1:50080"]).env_clear();
    command.env("KAIROS_IDENTITY_TELEMETRY_LISTEN", "127.0.0.1:0");
    command.env("KAIROS_IDENTITY_SESSION_ACCESS_TOKEN_LIFETIME", "2h").current_dir(folder.path());
    let error = error_line(1, &command.output().unwrap());
    assert_contains_all(
        &error,
        &[
            "session.access-token-lifetime is 2h (variable KAIROS_IDENTITY_SESSION_ACCESS_TOKEN_LIFETIME)",
            "session.idle is 1h (file k.toml (/",
            "mail.retry-first is 30s (default), mail.retry-max is 1s (file k.toml",
            "server.listen is 127.0.0.1:50080 (flag --listen), http.listen is 127.0.0.1:50080 (default)",
        ],
    );
}

#[test]
fn several_wrong_values_are_reported_at_once_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[database]\nurl = \"/var/x.db\"\n[mail]\ntimeout = 30\n[server]\nreflection = \"yes\"\nlisten = \":1\"\n";
    fs::write(folder.path().join("k.toml"), text).unwrap();
    let error = error_line(1, &run_in(folder.path(), &["serve", "--config", "k.toml"]));
    let expected = [
        "4 findings",
        ": write \"sqlite:///var/x.db\"",
        ": write \"30s\"",
        ": write true",
        ": write \"127.0.0.1:1\"",
    ];
    assert_contains_all(&error, &expected);
}

#[test]
fn files_that_cannot_be_meant_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| private_file::write(folder.path().join(name), content);
    let own = Certificate::localhost();
    let with_mark = |path: &Path| [&b"\xef\xbb\xbf"[..], &fs::read(path).unwrap()].concat();
    write("cert.pem", &with_mark(&own.certificate()));
    write("key.pem", &with_mark(&own.key()));
    write("secret.key", b"\xef\xbb\xbfq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
    write("callers.toml", b"\xef\xbb\xbf[a]");
    write("url", b"\xef\xbb\xbfsqlite://x.db");
    write("big.toml", &vec![b'#'; 40 << 20]);

    let files = refused(
        folder.path(),
        &[
            "--secret-key-file",
            "secret.key",
            "--callers",
            "callers.toml",
            "--tls-cert",
            "cert.pem",
            "--tls-key",
            "key.pem",
        ],
    );
    for name in ["secret.key-file: secret.key", "callers.file: callers.toml", "server.tls-cert: cert.pem"] {
        assert_contains_all(&files, &[name, "byte order mark (BOM) of UTF-8"]);
    }
    let key =
        refused(folder.path(), &["--tls-cert", own.certificate().to_str().unwrap(), "--tls-key", "key.pem"]);
    assert_contains_all(&key, &["server.tls-key: key.pem", "byte order mark"]);
    let big = error_line(1, &run_in(folder.path(), &["serve", "--config", "big.toml"]));
    assert_contains_all(&big, &["big.toml", "larger than 4 MiB"]);
    let url = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
        command.arg("migrate").env_clear().env("KAIROS_IDENTITY_DATABASE_URL_FILE", path);
        error_line(1, &command.current_dir(folder.path()).output().unwrap())
    };
    for (path, reason) in [("url", "byte order mark"), ("missing", "No such file"), (".", "it is a folder")] {
        let source = "(variable KAIROS_IDENTITY_DATABASE_URL_FILE)";
        assert_contains_all(&url(path), &["database.url-file: ", path, reason, source]);
    }
}

#[test]
fn files_that_other_users_may_change_stop_the_start() {
    let (folder, own) = (tempfile::tempdir().unwrap(), Certificate::localhost());
    let callers = CallersFile::new(&[("bff", &token(1), "*", "username")]);
    let key = folder.path().join("secret.key");
    fs::write(&key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let shown = |path: &Path| path.to_str().unwrap().to_owned();
    let (tls_key, certificate, callers) = (own.key(), own.certificate(), callers.path());
    for mode in [0o620, 0o602, 0o666] {
        for path in [&key, &tls_key, &callers, &certificate] {
            for private in [&key, &tls_key, &callers, &certificate] {
                set(private, 0o600);
            }
            set(path, mode);
            let error = refused(
                folder.path(),
                &[
                    "--secret-key-file",
                    &shown(&key),
                    "--tls-cert",
                    &shown(&certificate),
                    "--tls-key",
                    &shown(&tls_key),
                    "--callers",
                    &shown(&callers),
                ],
            );
            assert!(!error.contains("findings"), "{error}");
            assert_contains_all(&error, &[&shown(path), &format!("mode {mode:04o}"), "chmod go-w"]);
        }
    }
}

#[test]
fn a_settings_file_that_other_users_may_change_stops_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("kairos.toml");
    fs::write(&settings, "[mail]\nurl = \"folder:mail\"\n").unwrap();
    for mode in [0o620, 0o602, 0o646] {
        fs::set_permissions(&settings, fs::Permissions::from_mode(mode)).unwrap();
        let error = refused(folder.path(), &["--config", settings.to_str().unwrap()]);
        assert_contains_all(&error, &[settings.to_str().unwrap(), &format!("mode {mode:04o}"), "chmod go-w"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_other_users_may_read_are_warned_of() {
    let own = Certificate::localhost();
    let callers = CallersFile::new(&[("bff", &token(1), "*", "username")]);
    for path in [own.key(), callers.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let (certificate, key) = (own.certificate(), own.key());
    let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = callers.serve_on(TestServer::builder(Engine::Sqlite).with_args(&flags)).await;
    for path in [own.key(), callers.path()] {
        let warning = format!("other users may read {} (mode 0644)", path.display());
        assert!(server.log().contains(&warning), "{warning}: {}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_stops_the_start_until_it_is_replaced_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("data/kairos-identity.sqlite3.key");
    for command in [&["migrate"][..], &["keys", "rotate"]] {
        assert!(run_in(folder.path(), command).status.success());
    }
    fs::remove_file(&key).unwrap();

    let lost = refused(folder.path(), &[]);
    assert_contains_all(
        &lost,
        &["kairos-identity.sqlite3.key) is missing, but the database", "keys rotate --revoke-earlier"],
    );
    error_line(1, &run_in(folder.path(), &["keys", "rotate"]));
    assert!(!key.exists());

    let replaced = run_in(folder.path(), &["keys", "rotate", "--revoke-earlier"]);
    assert!(replaced.status.success() && key.exists(), "{replaced:?}");
    assert!(stdout(&run_in(folder.path(), &["keys", "list"])).lines().count() == 1);
}

#[test]
fn another_secret_key_rotates_no_signing_key() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["migrate"][..], &["keys", "rotate"]] {
        assert!(run_in(folder.path(), command).status.success());
    }
    private_file::write(folder.path().join("other.key"), "b3RoZXItc2VjcmV0LWtleS1vdGhlci1zZWNyZXQta2U=");

    let error = error_line(1, &run_in(folder.path(), &["keys", "rotate", "--secret-key-file", "other.key"]));

    assert_contains_all(&error, &["cannot be decrypted"]);
    assert_eq!(stdout(&run_in(folder.path(), &["keys", "list"])).lines().count(), 1);
}

#[test]
fn a_folder_as_database_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().display());
    let error = error_line(1, &run(&["migrate", "--database-url", &url]));
    assert_contains_all(&error, &["is a folder: name a file in it"]);
}
