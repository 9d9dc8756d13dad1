//! The command line, as an operator uses it.

use std::{os::unix::fs::PermissionsExt, process::Command};

use crate::support::{
    engine::{Engine, TestDatabase},
    people::{PASSWORD, address, login},
    postgres::Postgres,
    program::{error_line, run, stdout},
    server::TestServer,
    tls::Certificate,
    tools::repository,
};

/// Returns what `migrate` reports on an empty database.
fn ran_all_migrations() -> String {
    let migrations = std::fs::read_dir(repository().join("migrations/sqlite")).unwrap().count();
    format!("ran {migrations} migrations")
}

on_both_engines! {
    async fn users_are_listed_shown_verified_and_deleted(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        server.unverified_user("bob").await;
        let user = |arguments: &[&str]| server.command(&[&["user"], arguments].concat()).output().unwrap();

        let list = stdout(&user(&["list"]));
        let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.len(), 2, "{list}");
        assert_eq!((lines[0][0], lines[0][1], lines[0][3], lines[0][4]), (&*ada.auth_token, "unverified", "ada@example.com", "ada"));

        for key in [ada.auth_token.as_str(), "ADA@example.com", "Ada"] {
            assert!(stdout(&user(&["show", key])).contains(&ada.auth_token), "{key}");
        }
        assert!(stdout(&user(&["verify", "ada"])).contains("is_verified  true"));
        assert!(error_line(1, &user(&["show", "unknown"])).contains("no user has the username \"unknown\""));
        assert!(error_line(1, &user(&["verify", "unknown@example.com"])).contains("no user has the email \"unknown@example.com\""));
        let token = "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11";
        assert!(error_line(1, &user(&["delete", token, "--yes"])).contains(&format!("no user has the auth_token {token}")));

        assert!(error_line(1, &user(&["delete", "ada"])).contains("--yes"), "without a terminal the confirmation needs a flag");
        assert!(stdout(&user(&["delete", "ada", "--yes"])).contains("deleted"));
        assert_eq!(stdout(&user(&["list"])).lines().count(), 1);
        let gone = server.client().await.find_user(crate::support::people::by_email(&address("ada"))).await;
        assert_eq!(gone.unwrap_err().code(), tonic::Code::NotFound);
    }

    async fn a_throttled_user_is_unlocked(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1").start().await;
        server.member("ada").await;
        let mut client = server.client().await;
        let unlock = || stdout(&server.command(&["user", "unlock", "ada"]).output().unwrap());

        assert_eq!(unlock(), "there was nothing to unlock\n");
        client.login(login("ada", "wrong")).await.unwrap_err();
        assert_eq!(client.login(login("ada", PASSWORD)).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert_eq!(unlock(), "unlocked\n");
        client.login(login("ada", PASSWORD)).await.unwrap();
    }

    async fn the_healthcheck_reports_by_its_exit_code(engine: Engine) {
        let mut server = TestServer::start(engine).await;
        let url = format!("http://{}", server.address());

        let healthy = server.command(&["healthcheck", "--url", &url]).output().unwrap();
        server.kill_9();
        let dead = server.command(&["healthcheck", "--url", &url]).output().unwrap();

        assert!(healthy.status.success() && stdout(&healthy).contains("SERVING"));
        assert!(error_line(1, &dead).contains(&url));
    }

    async fn migrate_may_be_repeated(engine: Engine) {
        let database = TestDatabase::new(engine);
        let first = run(&["migrate", "--database-url", database.url()]);
        let second = run(&["migrate", "--database-url", database.url()]);

        assert!(stdout(&first).contains(&ran_all_migrations()), "{first:?}");
        assert!(stdout(&second).trim_end().ends_with("is up to date"), "{second:?}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_help_with_0() {
    for wrong in [&["sreve"][..], &[], &["serve", "--lisen", "x"], &["user"], &["user", "show"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    for help in [&["--help"][..], &["serve", "--help"], &["user", "delete", "--help"], &["--version"]] {
        let output = run(help);
        assert!(output.status.success() && !output.stdout.is_empty(), "{help:?}");
    }
}

#[test]
fn an_unsafe_or_invalid_command_is_refused_with_the_way_out() {
    for (arguments, word) in [
        (&["serve", "--listen", "0.0.0.0:0"][..], "--insecure-plaintext"),
        (&["serve", "--database-url", "postgres://a@127.0.0.1:1/x"], "--secret-key-file"),
        (&["serve", "--tls-cert", "x.pem"], "server.tls-key"),
        (&["serve", "--config", "missing.toml"], "missing.toml"),
        (&["user", "list"], "there is no database file"),
        (&["healthcheck", "--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let failure = error_line(1, &run(arguments));
        assert!(failure.contains(word), "{arguments:?}: {failure}");
    }
}

#[test]
fn the_error_about_an_invalid_setting_names_its_variable() {
    let output = Command::new(env!("CARGO_BIN_EXE_kairos-identity"))
        .args(["serve", "--print-config"])
        .env("KAIROS_IDENTITY_PASSWORD_COST", "99")
        .output()
        .unwrap();
    let failure = error_line(1, &output);
    assert!(failure.contains("KAIROS_IDENTITY_PASSWORD_COST") && failure.contains("4 to 15"), "{failure}");
}

#[test]
fn print_config_shows_the_effective_settings_without_passwords() {
    let output = run(&["serve", "--print-config", "--mail-url", "smtp://kairos:hunter2@mail.example"]);
    let printed = stdout(&output);
    assert!(
        output.status.success() && printed.contains("listen = \"127.0.0.1:50051\"  # default"),
        "{output:?}"
    );
    assert!(
        printed.contains("smtp://kairos:***@mail.example") && printed.contains("# flag --mail-url"),
        "{printed}"
    );
    assert!(!printed.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_a_postgresql_that_was_not_migrated_and_names_the_command() {
    let database = Postgres::shared().create_database();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("secret.key");
    std::fs::write(&key, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        database.url(),
        "--secret-key-file",
        key.to_str().unwrap(),
    ];

    let refusal = error_line(1, &run(&serve));

    assert!(refusal.contains("kairos-identity migrate"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_refuse_a_database_from_which_a_later_release_has_taken_what_they_use() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let database = TestDatabase::new(engine);
        assert!(run(&["migrate", "--database-url", database.url()]).status.success());
        database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231235959')");
        database.execute("UPDATE kairos_schema_compatibility SET oldest_compatible = '99991231235959'");
        for arguments in [&["migrate"][..], &["user", "list"]] {
            let failure = error_line(1, &run(&[arguments, &["--database-url", database.url()]].concat()));
            assert!(failure.contains("99991231235959") && failure.contains("later release"), "{failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_reported_in_one_line() {
    let failure =
        error_line(1, &run(&["migrate", "--database-url", "postgres://kairos:hunter2@127.0.0.1:1/x"]));
    assert!(failure.contains("not available") && !failure.contains("hunter2"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_serves_tls_and_the_healthcheck_verifies_it() {
    let own = Certificate::localhost();
    let (certificate, key) = (own.certificate(), own.key());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let server = TestServer::builder(Engine::Sqlite)
        .with_args(&["--tls-cert", certificate, "--tls-key", key])
        .start()
        .await;
    let url = format!("https://{}", server.address());

    let trusted = server.command(&["healthcheck", "--url", &url, "--ca-cert", certificate]).output().unwrap();
    let untrusted = server.command(&["healthcheck", "--url", &url]).output().unwrap();
    let plaintext =
        server.command(&["healthcheck", "--url", &url.replace("https", "http")]).output().unwrap();

    assert!(trusted.status.success(), "{trusted:?}");
    error_line(1, &untrusted);
    error_line(1, &plaintext);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_postgresql_use_tls_and_verify_the_certificate() {
    let (own, other) = (Certificate::localhost(), Certificate::localhost());
    let cluster = Postgres::own();
    let database = cluster.create_database();
    cluster.require_tls(&own);
    let base = database.url().split('?').next().unwrap();
    let migrate = |query: &str| run(&["migrate", "--database-url", &format!("{base}?{query}")]);

    let trusted = migrate(&format!("sslmode=verify-full&sslrootcert={}", own.certificate().display()));
    assert!(stdout(&trusted).contains(&ran_all_migrations()), "{trusted:?}");

    for sslmode in ["require", "verify-ca", "verify-full"] {
        let untrusted = migrate(&format!("sslmode={sslmode}&sslrootcert={}", other.certificate().display()));
        assert!(error_line(1, &untrusted).contains("certificate"), "{sslmode}: {untrusted:?}");
        assert!(
            error_line(1, &migrate(&format!("sslmode={sslmode}"))).contains("certificate"),
            "{sslmode}: the system's roots"
        );
    }
    error_line(1, &migrate("sslmode=disable"));
    assert!(error_line(2, &migrate("sslmode=prefer")).contains("sslmode must be"));
}
