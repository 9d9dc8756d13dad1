//! What the commands answer to each kind of mistake in settings, files, rights and servers: the setting, its
//! value, who set it, and the way out, in plain words.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use crate::support::{
    engine::Engine,
    postgres::Postgres,
    private_file,
    program::{assert_contains_all, error_line, run, run_in, stderr},
    server::TestServer,
    tls::Certificate,
};

/// The command `serve` on free ports.
const SERVE: [&str; 7] =
    ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--telemetry-listen", "127.0.0.1:0"];

/// A key file with one key.
const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";

#[track_caller]
fn assert_has_no_library_words(text: &str) {
    for words in [
        "os error",
        "db error",
        "error connecting",
        "invalid configuration",
        "Os {",
        "(InvalidContent",
        "OtherError",
        "bytes remaining",
        "message length",
    ] {
        assert!(!text.contains(words), "{words:?}: {text}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs the binary in `folder` with the permissions of files in force. They are not for root, unless it lacks
/// two capabilities.
fn run_without_privileges(folder: &Path, arguments: &[&str]) -> Output {
    let dropped = "-dac_override,-dac_read_search";
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", dropped, "--inh-caps", dropped]);
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let binary = env!("CARGO_BIN_EXE_kairos-identity");
    let mut command = if is_root {
        command.arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command.args(arguments).env_clear().current_dir(folder).output().unwrap()
}

#[test]
fn a_file_that_is_none_is_named_with_its_setting_and_who_set_it() {
    let (folder, own) = (tempfile::tempdir().unwrap(), Certificate::localhost());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    symlink("loop", at("loop")).unwrap();
    symlink("/nowhere", at("dangling")).unwrap();
    let (certificate, key) = (own.certificate(), own.key());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    for (file, reason) in [
        ("missing", "No such file"),
        ("folder", "it is a folder"),
        ("pipe", "it is a named pipe, not a file"),
        ("loop", "it is a symbolic link that leads to itself"),
        ("dangling", "it is a symbolic link to /nowhere: No such file"),
    ] {
        for (setting, cert, key) in
            [("tls-cert", file, key), ("tls-key", certificate, file), ("tls-client-ca", certificate, key)]
        {
            let authority = if setting == "tls-client-ca" { file } else { certificate };
            let text = format!(
                "[server]\ntls-client-ca = \"{authority}\"\ntls-key = \"{key}\"\ntls-cert = \"{cert}\"\n"
            );
            fs::write(at("k.toml"), text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
            command.args(SERVE).args(["--config", "k.toml", "--callers", file]).env_clear();
            command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", file).current_dir(folder.path());
            let error = error_line(1, &command.output().unwrap());
            assert_contains_all(
                &error,
                &[
                    "3 findings",
                    &format!("callers.file: {file} (/"),
                    &format!("[callers.file is {file} (flag --callers)]"),
                    &format!("[secret.key-file is {file} (variable KAIROS_IDENTITY_SECRET_KEY_FILE)]"),
                    &format!("[server.{setting} is {file} (file k.toml (/"),
                    reason,
                ],
            );
            assert_has_no_library_words(&error);
        }
        let config = error_line(1, &run_in(folder.path(), &["serve", "--config", file]));
        assert_contains_all(&config, &["cannot read the settings file", file, reason, "(flag --config)"]);
    }
    assert!(!at("data").exists());
}

#[test]
fn a_folder_or_database_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    symlink("loop", at("loop")).unwrap();
    private_file::write(at("text"), "no database, but long enough".repeat(100));
    for (url, reason) in [
        ("sqlite://pipe", "pipe (/"),
        ("sqlite://pipe", "not a file"),
        ("sqlite://loop", "leads to itself"),
        ("sqlite://text", "the file is not a database of SQLite"),
        ("sqlite:///dev/null", "it is a device"),
        ("sqlite://text/x.db", "text is not a folder"),
    ] {
        let error = error_line(1, &run_in(folder.path(), &[&SERVE[..], &["--database-url", url]].concat()));
        assert_contains_all(
            &error,
            &["database.url: ", reason, &format!("[database.url is {url} (flag --database-url)]")],
        );
        assert_has_no_library_words(&error);
    }
    for arguments in [
        &["user", "list", "--database-url", "sqlite://text"][..],
        &["import", "django", "--dry-run", "--from", "sqlite://text"],
    ] {
        let error = error_line(1, &run_in(folder.path(), arguments));
        assert_contains_all(&error, &["text (/", "the file is not a database of SQLite"]);
    }
    for (url, reason) in [
        ("file://loop", "loop is not a folder, but a symbolic link to loop"),
        ("file://text", "text is not a folder"),
        (&format!("file://{}", "x".repeat(256)), "longer than 255 bytes"),
    ] {
        let error = error_line(1, &run_in(folder.path(), &[&SERVE[..], &["--mail-url", url]].concat()));
        assert_contains_all(&error, &["mail.url: ", reason, "(flag --mail-url)]"]);
    }
    for (path, reason) in
        [("text", "text: it is a file, not a folder"), ("text/x", "a folder in its path is a file")]
    {
        private_file::write(at("pages.toml"), format!("[pages]\ntemplates = \"{path}\"\n"));
        let error =
            error_line(1, &run_in(folder.path(), &[&SERVE[..], &["--config", "pages.toml"]].concat()));
        assert_contains_all(&error, &["pages.templates: ", reason]);
    }
}

#[test]
fn missing_rights_are_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let refused = |arguments: &[&str]| error_line(1, &run_without_privileges(folder.path(), arguments));
    assert!(run_in(folder.path(), &["migrate"]).status.success());
    let database = at("data/kairos-identity.sqlite3");

    set_mode(&database, 0o400);
    let read_only = refused(&SERVE);
    assert_contains_all(
        &read_only,
        &["database.url: data/", "the user of this process may not read and write it"],
    );
    // What the command leaves beside the file has the permissions of the file.
    let listed = run_without_privileges(folder.path(), &["user", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    set_mode(&database, 0o600);
    assert_contains_all(
        &refused(&SERVE),
        &["kairos-identity.sqlite3-wal (/", "the user of this process may not read and write it"],
    );
    for suffix in ["wal", "shm"] {
        fs::remove_file(at(&format!("data/kairos-identity.sqlite3-{suffix}"))).unwrap();
    }
    set_mode(&database, 0o000);
    assert_contains_all(
        &refused(&["user", "list"]),
        &["may not read the file", "[database.url is sqlite://data/"],
    );
    set_mode(&database, 0o600);
    set_mode(&at("data"), 0o500);
    assert_contains_all(
        &refused(&SERVE),
        &["database.url: cannot write beside data/", "may not write to the folder /"],
    );
    let backup = refused(&["backup", "--to", "data/backup.sqlite3"]);
    assert_has_no_library_words(&backup);
    set_mode(&at("data"), 0o000);
    assert_contains_all(
        &refused(&["user", "list"]),
        &["database.url: data/", "the user of this process may not access it"],
    );
    set_mode(&at("data"), 0o700);
    let files: Vec<_> = fs::read_dir(at("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["kairos-identity.sqlite3"]);

    private_file::write(at("key"), KEY);
    set_mode(&at("key"), 0o000);
    let key = refused(&[&SERVE[..], &["--secret-key-file", "key"]].concat());
    assert_contains_all(&key, &["secret.key-file: key (/", "may not read it", "(flag --secret-key-file)]"]);

    // A command that changes the file needs its folder too.
    fs::create_dir(at("keys")).unwrap();
    private_file::write(at("keys/key"), KEY);
    assert!(run_in(folder.path(), &["migrate"]).status.success());
    set_mode(&at("keys"), 0o500);
    let added = refused(&["keys", "secret", "add", "--secret-key-file", "keys/key"]);
    assert_contains_all(&added, &["may not create a file in the folder /"]);
    assert_has_no_library_words(&added);
    set_mode(&at("keys"), 0o700);
    set_mode(&database, 0o400);
    let rotated = refused(&["keys", "rotate", "--secret-key-file", "keys/key"]);
    assert_contains_all(&rotated, &["may not write the file"]);
    set_mode(&database, 0o600);
}

#[test]
fn a_key_that_is_not_text_or_not_of_the_certificate_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("raw"), [0xff; 32]).unwrap();
    set_mode(&at("raw"), 0o600);
    let raw = error_line(1, &run_in(folder.path(), &[&SERVE[..], &["--secret-key-file", "raw"]].concat()));
    assert_contains_all(&raw, &["secret.key-file: raw (/", "a key is written in base64"]);

    let (one, other) = (Certificate::localhost(), Certificate::localhost());
    let (certificate, key) = (one.certificate(), other.key());
    let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mismatch = error_line(1, &run_in(folder.path(), &[&SERVE[..], &flags].concat()));
    assert_contains_all(
        &mismatch,
        &["the key does not belong to the certificate: name a certificate and the key"],
    );
    assert!(!mismatch.contains("KeyMismatch"), "{mismatch}");
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("threads.toml"), "[server]\nthreads = 3\n").unwrap();
    for files in ["6", "14", "63"] {
        // Each thread that serves connections needs six more.
        let serve = [&SERVE[..], &["--config", "threads.toml"]].concat();
        for (arguments, needed) in [(&serve[..], 64 + 3 * 6), (&["migrate"], 64), (&["user", "list"], 64)] {
            let script = "ulimit -n \"$0\"; exec \"$@\"";
            let mut command = Command::new("sh");
            command.args(["-c", script, files, env!("CARGO_BIN_EXE_kairos-identity")]).args(arguments);
            let error = error_line(1, &command.env_clear().current_dir(folder.path()).output().unwrap());
            let expected = format!("may open only {files} files, and needs at least {needed}");
            assert_contains_all(&error, &[&expected, "`ulimit -n`"]);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only threads.toml");
}

#[test]
fn what_is_left_of_a_lost_database_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    private_file::write(at("x.db.key"), KEY);
    let with_url = |arguments: &[&'static str]| [arguments, &["--database-url", "sqlite://x.db"]].concat();
    let error = error_line(1, &run_in(folder.path(), &with_url(&SERVE)));
    assert_contains_all(&error, &["x.db is missing or empty", "x.db.key", "`kairos-identity migrate`"]);
    assert!(!error.contains("WAL"), "{error}");

    fs::write(at("x.db-wal"), "rest").unwrap();
    let error = error_line(1, &run_in(folder.path(), &with_url(&SERVE)));
    assert_contains_all(&error, &["x.db-wal", "x.db.key", "only the WAL"]);
    fs::remove_file(at("x.db-wal")).unwrap();
    assert!(run_in(folder.path(), &with_url(&["migrate"])).status.success(), "as the message says");
}

#[test]
fn a_disk_without_room_for_a_new_database_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&SERVE[..], &["migrate"]] {
        let mut command = Command::new("sh");
        // The signal that the kernel sends with the error would end the process.
        command.args([
            "-c",
            "trap '' XFSZ; exec prlimit --fsize=100000: \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_kairos-identity"),
        ]);
        let error = error_line(1, &command.args(arguments).current_dir(folder.path()).output().unwrap());
        assert_contains_all(
            &error,
            &["database.url: cannot create data/", "the disk is full: there is no room for 1024 KiB"],
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_locked_database_file_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("x.db").display());
    assert!(run(&["migrate", "--database-url", &url]).status.success());
    let mut other = SqliteConnection::establish(url.trim_start_matches("sqlite://")).unwrap();
    other.batch_execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DROP TABLE core_user").unwrap();

    let error = error_line(1, &run(&["migrate", "--database-url", &url]));
    assert_contains_all(&error, &["x.db", "another program has locked the file", "stop it"]);

    // A lock that lets others read.
    drop(other);
    let mut other = SqliteConnection::establish(url.trim_start_matches("sqlite://")).unwrap();
    other.batch_execute("BEGIN IMMEDIATE; CREATE TABLE x (y INTEGER)").unwrap();
    let error = error_line(1, &run(&["migrate", "--database-url", &url]));
    assert_contains_all(&error, &["x.db", "another program writes to the file", "stop it"]);
}

#[test]
fn a_role_without_the_rights_to_migrate_is_named_with_the_way_out() {
    let cluster = Postgres::shared();
    let (database, of_owner) = cluster.create_database_of("owner_of_tables");
    let role = "without_rights";
    cluster.psql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let of_role = database.url_at(cluster.port(), role);
    let migrate = |url: &str| run(&["migrate", "--database-url", url]);

    let error = error_line(1, &migrate(&of_role));
    let way_out = "GRANT CREATE ON SCHEMA public TO without_rights";
    assert_contains_all(&error, &["the role without_rights may not create tables", way_out]);

    assert!(migrate(&of_owner).status.success());
    cluster.psql(database.name(), &format!("GRANT CREATE ON SCHEMA public TO {role}"));
    cluster.psql(database.name(), &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"));
    let error = error_line(1, &migrate(&of_role));
    assert_contains_all(&error, &["the tables belong to the role owner_of_tables", "migrate as"]);

    cluster.psql(
        "postgres",
        &format!("ALTER ROLE {role} IN DATABASE {} SET search_path = absent", database.name()),
    );
    let error = error_line(1, &migrate(&of_role));
    assert_contains_all(&error, &["no schema of the search_path exists"]);
}

#[test]
fn a_role_that_may_only_read_is_warned_of_all_rights_that_it_lacks() {
    let cluster = Postgres::shared();
    let (database, of_owner) = cluster.create_database_of("owner_of_rights");
    assert!(run(&["migrate", "--database-url", &of_owner]).status.success());
    let role = "only_reads";
    cluster.psql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    cluster.psql(database.name(), &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"));
    let of_role = database.url_at(cluster.port(), role);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("secret.key");
    private_file::write(&key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=");
    let key = key.to_str().unwrap();
    let output =
        run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &of_role, "--secret-key-file", key]);
    let lacking = "the role of database.url lacks INSERT, UPDATE, DELETE on core_audit_event, ";
    assert_contains_all(&stderr(&output), &[lacking, ", core_user: grant it to the role"]);
}

#[test]
fn the_wrong_part_of_a_url_or_address_is_named_with_who_set_it() {
    for (flag, value, parts) in [
        ("--public-base-url", "https://x:0", &["mail.public-base-url", "the port is not a number"][..]),
        ("--public-base-url", "https://u:hunter2@x", &["it has a user or a password"]),
        ("--mail-url", "smtp://a:hunter2@mail.example:0", &["mail.url", "the port is not a number"]),
        ("--mail-url", "smtp://a@mail.example", &["the user has no password"]),
        (
            "--database-url",
            "postgres://a:hunter2@h:70000/x",
            &["database.url", "the port of a host is not a number"],
        ),
        ("--database-url", "postgres://a:hunter2/x", &["the port of a host is not a number"]),
        ("--database-url", "postgres://a:hunter2@h/x?sslmode=prefer", &["sslmode must be"]),
        ("--database-url", "postgres://a:hunter2@h/x?sslkey=y", &["the parameter sslkey is unknown"]),
        ("--database-url", "sqlite://:memory:", &["would be lost"]),
        ("--database-url", "sqlite://x.db?mode=ro", &["a SQLite URL has no parameters"]),
        ("--listen", "127.0.0.1", &["server.listen", "the port is missing"]),
        ("--listen", "127.0.0.1:65536", &["the port is not a number from 0 to 65535"]),
        ("--listen", "::1:50051", &["an IPv6 address needs brackets"]),
        ("--listen", "224.0.0.1:50051", &["an address of many machines"]),
    ] {
        let error = error_line(2, &run(&["serve", flag, value]));
        assert_contains_all(&error, parts);
        assert_contains_all(&error, &["expected", &format!("(flag {flag})")]);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_tls_file_in_another_form_is_named_with_the_command_that_converts_it() {
    let (folder, own) = (tempfile::tempdir().unwrap(), Certificate::localhost());
    let (der, encrypted) = (folder.path().join("cert.der"), folder.path().join("key.pem"));
    let pem = fs::read_to_string(own.certificate()).unwrap();
    let pem = rustls_pem(&pem);
    fs::write(&der, pem).unwrap();
    private_file::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let refused = |certificate: &Path, key: &Path| {
        let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        error_line(1, &run(&[&SERVE[..], &flags].concat()))
    };
    assert_contains_all(
        &refused(&der, &own.key()),
        &["server.tls-cert", "DER format", "openssl x509 -inform der"],
    );
    let encrypted = refused(&own.certificate(), &encrypted);
    assert_contains_all(&encrypted, &["server.tls-key", "encrypted with a password", "openssl pkey"]);
}

/// Returns the bytes of the first block of a PEM file.
fn rustls_pem(text: &str) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let lines: String = text.lines().skip(1).take_while(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(lines).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_warned_of_and_named_by_the_healthcheck() {
    let own = Certificate::expired();
    let (certificate, key) = (own.certificate(), own.key());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let flags = ["--tls-cert", certificate, "--tls-key", key];
    let server = TestServer::builder(Engine::Sqlite).with_args(&flags).start().await;
    assert_contains_all(&server.log(), &["server.tls-cert: ", "the certificate expired at"]);
    let url = format!("https://{}", server.address());
    let check = server.command(&["healthcheck", "--url", &url, "--tls-ca", certificate]).output().unwrap();
    assert_contains_all(&error_line(1, &check), &["invalid peer certificate: it has expired"]);
}

/// Listens on a free port and answers each connection with `answer`. Returns the port.
fn other_server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connection_to_postgresql_says_what_to_correct() {
    let cluster = Postgres::shared();
    let (port, database) = (cluster.port(), cluster.create_database());
    let (silent, ssh) = (other_server(b""), other_server(b"SSH-2.0-OpenSSH_9.2\r\n"));
    let http = other_server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let redis = other_server(b"-ERR unknown command\r\n");
    let zeros = other_server(&[0; 64]);
    let cases = [
        (
            format!("postgres://postgres@127.0.0.1:{port}/nowhere"),
            "the server has no database \"nowhere\": create it",
        ),
        (format!("postgres://stranger@127.0.0.1:{port}/{}", database.name()), "the user \"stranger\""),
        (format!("postgres://postgres@127.0.0.1:{port}/x?sslmode=require"), "the server offers no TLS"),
        ("postgres://a@127.0.0.1:1/x".to_owned(), "no program listens there"),
        (format!("postgres://a@127.0.0.1:{silent}/x"), "is it PostgreSQL?"),
        (format!("postgres://a@127.0.0.1:{ssh}/x?sslmode=disable"), "is not PostgreSQL"),
        (format!("postgres://a@127.0.0.1:{http}/x?sslmode=disable"), "is not PostgreSQL"),
        (format!("postgres://a@127.0.0.1:{redis}/x?sslmode=disable"), "is not PostgreSQL"),
        (format!("postgres://a@127.0.0.1:{zeros}/x?sslmode=disable"), "is not PostgreSQL"),
        (format!("postgres://a@127.0.0.1:{ssh}/x?sslmode=require"), "speaks no TLS: is it PostgreSQL?"),
        ("postgres://a@/x?host=/nowhere".to_owned(), "no PostgreSQL server has this socket"),
        (
            "postgres://a@127.0.0.1/x?sslmode=require&sslrootcert=/nowhere.pem".to_owned(),
            "sslrootcert /nowhere.pem: No such file",
        ),
        (
            "postgres://a@127.0.0.1/x?sslmode=require&sslrootcert=/dev/null".to_owned(),
            "contains no certificate",
        ),
    ];
    for (url, reason) in &cases {
        let error = error_line(1, &run(&["migrate", "--database-url", url]));
        assert_contains_all(
            &error,
            &["database.url: ", reason, &format!("[database.url is {url} (flag --database-url)]")],
        );
        assert_has_no_library_words(&error);
    }
    // While `serve` and `migrate` wait, the log says the same.
    let waits = Command::new(env!("CARGO_BIN_EXE_kairos-identity"))
        .args(["migrate", "--database-url", "postgres://a@127.0.0.1:1/x"])
        .env_clear()
        .env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "100ms")
        .output()
        .unwrap();
    assert_contains_all(&stderr(&waits), &["is not ready; waiting", "no program listens there"]);
    assert_has_no_library_words(&stderr(&waits));
}

/// Listens on a free port and refuses TLS on each connection. Returns the port, and what each connection has
/// sent until it was closed.
fn server_without_tls() -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::<Mutex<Vec<_>>>::default();
    let connections = Arc::clone(&received);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut sent = vec![0; 8];
            let _ = stream.read_exact(&mut sent);
            let _ = stream.write_all(b"N");
            let _ = stream.read_to_end(&mut sent);
            connections.lock().unwrap().push(sent);
        }
    });
    (port, received)
}

/// A wait for the server, replicas and the database of Django included: nothing is sent before TLS, not even
/// the name of the role.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_postgresql_without_tls_unless_the_url_allows_it() {
    /// `SSLRequest` (PostgreSQL's documentation, "Message Formats").
    const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    let folder = tempfile::tempdir().unwrap();
    private_file::write(folder.path().join("key"), KEY);
    let url_of = |port: u16| format!("postgres://ada:secret@127.0.0.1:{port}/x?sslmode=require");
    let commands: [fn(&str) -> Vec<&str>; 6] = [
        |url| vec!["migrate", "--database-url", url],
        |url| [&SERVE[..], &["--secret-key-file", "key", "--database-url", url]].concat(),
        |url| vec!["user", "list", "--database-url", url],
        |url| vec!["import", "django", "--dry-run", "--from", url],
        |url| vec!["export", "django", "--to", url],
        |url| vec!["copy", "--from", url, "--to", "sqlite://copy.sqlite3"],
    ];
    assert!(run_in(folder.path(), &["migrate"]).status.success());
    for arguments in commands {
        let (port, received) = server_without_tls();
        let url = url_of(port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kairos-identity"));
        command.args(arguments(&url)).env_clear().current_dir(folder.path());
        command.env("KAIROS_IDENTITY_DATABASE_STARTUP_WAIT", "100ms");
        let refused = error_line(1, &command.output().unwrap());
        let received = received.lock().unwrap();
        assert!(!received.is_empty(), "no connection: {refused}");
        assert!(received.iter().all(|sent| sent == SSL_REQUEST), "{refused}: {received:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_postgresql_that_is_not_valid_says_why() {
    let cluster = Postgres::own();
    let database = cluster.create_database();
    let base = database.url().split('?').next().unwrap();
    let refused = |own: &Certificate| {
        cluster.require_tls(own);
        let url = format!("{base}?sslmode=require&sslrootcert={}", own.certificate().display());
        let error = error_line(1, &run(&["migrate", "--database-url", &url]));
        assert_has_no_library_words(&error);
        error
    };
    assert_contains_all(&refused(&Certificate::expired()), &["the certificate of the server has expired"]);
    let named = refused(&Certificate::with_names(&["db.example"], |_| {}));
    assert_contains_all(
        &named,
        &["the certificate of the server has the names", "db.example", "not 127.0.0.1"],
    );
    let plain = error_line(1, &run(&["migrate", "--database-url", &format!("{base}?sslmode=disable")]));
    assert_contains_all(&plain, &["pg_hba.conf has no line for it"]);
}
