//! The keys that encrypt stored secrets: their rotation while instances run, and the binding to the row.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::{
    domain::{Sealed, hex},
    entropy::Entropy,
    sealing::{Purpose, SealingKeys},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::support::{
    audit::audit,
    engine::{Engine, TestDatabase},
    people::{address, registration},
    private_file,
    program::{error_line, run_in, stderr, stdout},
    server::{Builder, TestServer},
    sessions::{introspect, log_in},
    smtp::{SmtpServer, attempts, with_short_pauses},
    wait::until,
};

const LIMIT: Duration = Duration::from_secs(15);

/// Returns the settings of a service whose mails wait, because the SMTP server defers them.
fn with_waiting_mails(database: &TestDatabase, smtp: &SmtpServer) -> Builder {
    smtp.set_mode("refuse-4xx");
    let builder = with_short_pauses(TestServer::on_url(database.url().to_owned())).with_mail_url(&smtp.url());
    builder.with_env("KAIROS_IDENTITY_MAIL_RETRY_MAX", "1s")
}

/// Registers a user, whose mail waits, and verifies the email as an operator.
async fn verified(server: &TestServer, name: &str) {
    server.unverified_user(name).await;
    let output = server.command(&["user", "verify", &address(name)]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Runs `keys secret` with these arguments, and returns what it prints.
fn secret(server: &TestServer, arguments: &[&str]) -> String {
    let output = server.command(&[&["keys", "secret"], arguments].concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// Returns the id, state and number of values of each key.
fn listed(server: &TestServer) -> Vec<[String; 3]> {
    let fields = |line: &str| -> [String; 3] {
        line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
    };
    secret(server, &["list"]).lines().map(fields).collect()
}

/// Waits until the SMTP server has accepted a mail to each of these users.
async fn delivered(smtp: &SmtpServer, names: &[String]) {
    smtp.set_mode("ok");
    let all = async || {
        let log = smtp.log();
        let has = |name: &String| {
            let to = serde_json::json!([address(name)]);
            log.iter().any(|attempt| attempt["answer"] == "250" && attempt["recipients"] == to)
        };
        names.iter().all(has).then_some(())
    };
    until("every mail is delivered", LIMIT, all).await;
}

on_both_engines! {
    async fn the_secret_key_is_rotated_while_two_instances_run(engine: Engine) {
        let (smtp, database) = (SmtpServer::start(), TestDatabase::new(engine));
        let first = with_waiting_mails(&database, &smtp).start().await;
        let second = first.second_instance().await;
        fs::remove_file(second.secret_key_file()).unwrap();
        symlink(first.secret_key_file(), second.secret_key_file()).unwrap();
        verified(&first, "ada").await;
        let token = log_in(&first, "ada").await.access_token;
        let old = listed(&first)[0][0].clone();

        // Registrations at both instances, whose mails wait, while the key is rotated.
        let is_done = AtomicBool::new(false);
        let load = async {
            let mut names = Vec::new();
            while !is_done.load(Ordering::Relaxed) || names.len() < 4 {
                let server = if names.len() % 2 == 0 { &first } else { &second };
                let name = format!("user{}", names.len());
                server.client().await.register(registration(&name)).await.unwrap();
                names.push(name);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            names
        };
        let mut rotate = first.command(&["keys", "secret", "rotate", "--wait", "2500ms"]);
        let rotated = async {
            let output = tokio::task::spawn_blocking(move || rotate.output().unwrap()).await.unwrap();
            is_done.store(true, Ordering::Relaxed);
            output
        };
        let (names, output) = tokio::join!(load, rotated);

        let printed = stdout(&output);
        assert!(output.status.success() && printed.contains("is not used by this database"), "{output:?}");
        let [[new, state, number], [earlier, _, unused]] = listed(&first).try_into().unwrap();
        assert!(new != old && earlier == old && state == "current" && unused == "0", "{new} {state} {unused}");
        assert!(number.parse::<usize>().unwrap() > names.len(), "{number}");
        secret(&first, &["remove", &old]);
        second.logged(&format!("{new} encrypts, {new} decrypt")).await;
        delivered(&smtp, &names).await;
        for server in [&first, &second] {
            assert!(introspect(server, &token).await.active);
            log_in(server, "ada").await;
            assert!(!server.log().contains("encrypted under another key"), "{}", server.log());
        }
        let recorded = audit(&first, &["--kind", "authz_admin"]);
        let recorded: Vec<_> = recorded.into_iter().filter_map(|event| event.resource).collect();
        assert!(recorded.contains(&format!("secret key {old}: removed")), "{recorded:?}");
    }

    async fn an_interrupted_rotation_is_completed(engine: Engine) {
        let (smtp, database) = (SmtpServer::start(), TestDatabase::new(engine));
        let mut server = with_waiting_mails(&database, &smtp).start().await;
        server.client().await.register(registration("ada")).await.unwrap();
        let old = listed(&server)[0][0].clone();

        let mut rotate = server.command(&["keys", "secret", "rotate", "--wait", "700ms"]);
        let mut rotate = rotate.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Killed between the second and the third step.
        let key = server.secret_key_file();
        let is_current = async || {
            let id = SealingKeys::load(&key).ok()?.ring().current().to_string();
            (id != old).then_some(())
        };
        until("the new key is current", LIMIT, is_current).await;
        rotate.kill().unwrap();
        rotate.wait().unwrap();
        server.logged("Reloaded the secret keys").await;
        // The stored values are now under two keys, as in the middle of the third step.
        server.signal("HUP");
        server.logged(&format!(", {old} decrypt")).await;
        server.client().await.register(registration("bob")).await.unwrap();
        let numbers = |server: &TestServer| listed(server).into_iter().map(|[_, _, number]| number).collect::<Vec<_>>();
        assert_eq!(numbers(&server), ["1", "2"]);
        server.restart().await;

        secret(&server, &["reseal"]);
        assert_eq!(numbers(&server), ["3", "0"]);
        secret(&server, &["remove", &old]);
        server.restart().await;
        delivered(&smtp, &["ada".to_owned(), "bob".to_owned()]).await;
    }

    async fn a_value_moved_to_another_row_does_not_open(engine: Engine) {
        let (smtp, database) = (SmtpServer::start(), TestDatabase::new(engine));
        let server = with_waiting_mails(&database, &smtp).start().await;
        for name in ["ada", "bob", "eve"] {
            server.client().await.register(registration(name)).await.unwrap();
        }
        attempts(&smtp, 3).await;
        let (ada, bob, eve) = (address("ada"), address("bob"), address("eve"));
        // The token of ada's mail in the row of bob, and eve's mail with another recipient.
        database.execute(&format!(
            "UPDATE core_mail_outbox SET sealed_token = \
             (SELECT sealed_token FROM core_mail_outbox WHERE recipient = '{ada}') WHERE recipient = '{bob}'; \
             UPDATE core_mail_outbox SET recipient = 'thief@example.com' WHERE recipient = '{eve}'"
        ));

        // Both are retried, as an instance with the right key might send them.
        let both_fail = async || {
            let log = server.log();
            let failed = log.lines().filter(|line| line.contains("belongs to another row"));
            let ids = failed.filter_map(|line| line.split("\"message_id\":\"").nth(1)?.split('"').next());
            (ids.collect::<HashSet<_>>().len() == 2).then_some(())
        };
        until("both mails fail", LIMIT, both_fail).await;
        delivered(&smtp, &["ada".to_owned()]).await;
        let accepted = smtp.log().into_iter().filter(|attempt| attempt["answer"] == "250");
        assert_eq!(accepted.map(|attempt| attempt["recipients"].clone()).collect::<Vec<_>>(), [serde_json::json!([ada])]);
    }

    async fn the_values_of_an_earlier_release_open_and_are_bound_by_resealing(engine: Engine) {
        let (smtp, database) = (SmtpServer::start(), TestDatabase::new(engine));
        let mut server = with_waiting_mails(&database, &smtp).start().await;
        verified(&server, "ada").await;
        let token = log_in(&server, "ada").await.access_token;
        server.client().await.register(registration("bob")).await.unwrap();
        server.kill_9();
        let keys = SealingKeys::load(&server.secret_key_file()).unwrap();
        seal_as_before(&database, &keys, &server.secret_key());

        server.restart().await;
        assert!(introspect(&server, &token).await.active);
        assert_eq!(listed(&server)[1], ["-", "earlier", "3"]);
        assert!(secret(&server, &["reseal"]).starts_with("encrypted 3 values again"));
        assert_eq!(listed(&server).len(), 1);
        server.restart().await;
        assert!(introspect(&server, &token).await.active);
        delivered(&smtp, &["bob".to_owned()]).await;
    }

    async fn the_key_file_of_another_service_is_not_changed(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let old = listed(&server)[0][0].clone();
        fs::remove_file(server.secret_key_file()).unwrap();
        private_file::write(server.secret_key_file(), STANDARD.encode(Entropy::system().bytes::<32>()));
        let other = fs::read(server.secret_key_file()).unwrap();

        for arguments in [&["add"][..], &["rotate", "--wait", "1ms"]] {
            let output = server.command(&[&["keys", "secret"], arguments].concat()).output().unwrap();
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert!(message.contains("cannot be decrypted") && message.contains(&old), "{message}");
            assert_eq!(fs::read(server.secret_key_file()).unwrap(), other, "{arguments:?}");
        }
    }

    async fn a_lost_earlier_key_is_named(engine: Engine) {
        let (smtp, database) = (SmtpServer::start(), TestDatabase::new(engine));
        let mut server = with_waiting_mails(&database, &smtp).start().await;
        server.client().await.register(registration("ada")).await.unwrap();
        let old = listed(&server)[0][0].clone();
        let new = STANDARD.encode(Entropy::system().bytes::<32>());
        fs::remove_file(server.secret_key_file()).unwrap();
        private_file::write(server.secret_key_file(), &new);

        server.logged(&format!("no longer has the key {old}")).await;
        assert!(server.is_running());
        server.kill_9();
        let path = server.secret_key_file().display().to_string();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"];
        let refused = stderr(&server.command(&serve).output().unwrap());
        for part in [&old, &path, "encrypted under another key", "keys rotate --revoke-earlier"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let removed = server.command(&["keys", "secret", "remove", &old]).output().unwrap();
        assert!(stderr(&removed).contains("may be encrypted under the key"), "{removed:?}");
        let resealed = server.command(&["keys", "secret", "reseal"]).output().unwrap();
        assert!(!resealed.status.success() && stderr(&resealed).contains(&old), "{resealed:?}");

        // With a new signing key the service starts, and names the key of the mail that waits.
        assert!(server.command(&["keys", "rotate", "--revoke-earlier"]).output().unwrap().status.success());
        server.restart().await;
        let log = server.logged("are encrypted under the key").await;
        assert!(log.contains(&format!("1 stored secrets (tokens of unsent mails, signing keys) are encrypted under the key {old}")), "{log}");
        assert_eq!(listed(&server)[1], [old, "missing".to_owned(), "1".to_owned()]);
    }
}

/// Encrypts the stored values as a release did whose values named no key.
fn seal_as_before(database: &TestDatabase, keys: &SealingKeys, key: &str) {
    let key = UnboundKey::new(&AES_256_GCM, &STANDARD.decode(key.trim()).unwrap()).unwrap();
    let key = LessSafeKey::new(key);
    let text_of = |column: &str| match database.engine() {
        Engine::Sqlite => format!("lower(hex({column}))"),
        Engine::Postgres => format!("encode({column}, 'hex')"),
    };
    let literal = |bytes: &[u8]| match database.engine() {
        Engine::Sqlite => format!("X'{}'", hex(bytes)),
        Engine::Postgres => format!("'\\x{}'", hex(bytes)),
    };
    let seal = |context: &'static [u8], secret: [u8; 32]| {
        let (nonce, mut ciphertext) = (Entropy::system().bytes::<12>(), secret.to_vec());
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::from(context), &mut ciphertext).unwrap();
        literal(&[&[1][..], &nonce, &ciphertext].concat())
    };
    let bytes = |text: &str| -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let rows = database
        .rows(&format!("SELECT kid || ' ' || {} AS value FROM core_signing_key", text_of("sealed_seed")));
    for row in rows {
        let (kid, sealed) = row.split_once(' ').unwrap();
        let secret = keys.open(Purpose::SigningSeed { key_id: kid }, &Sealed::from_bytes(bytes(sealed)));
        let sealed = seal(b"kairos-identity signing seed v1", secret.unwrap());
        database.execute(&format!("UPDATE core_signing_key SET sealed_seed = {sealed} WHERE kid = '{kid}'"));
    }
    let rows = database.rows(&format!(
        "SELECT message_id || ' ' || recipient || ' ' || {} AS value FROM core_mail_outbox WHERE sealed_token IS NOT NULL",
        text_of("sealed_token")
    ));
    for row in rows {
        let [id, recipient, sealed] = row.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let purpose = Purpose::MailToken { message_id: id, recipient };
        let secret = keys.open(purpose, &Sealed::from_bytes(bytes(sealed))).unwrap();
        let sealed = seal(b"kairos-identity mailed token v1", secret);
        database.execute(&format!(
            "UPDATE core_mail_outbox SET sealed_token = {sealed} WHERE message_id = '{id}'"
        ));
    }
}

#[test]
fn the_key_beside_a_sqlite_database_is_rotated_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = run_in(folder.path(), arguments);
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    run(&["migrate"]);
    run(&["keys", "rotate"]);
    let path = folder.path().join("data/kairos-identity.sqlite3.key");
    let before = fs::read_to_string(&path).unwrap();
    run(&["keys", "secret", "add"]);
    let list = run(&["keys", "secret", "list"]);
    let added = list.lines().nth(1).unwrap().split('\t').next().unwrap();
    assert!(list.contains("\tcurrent\t1\n") && list.contains(&format!("{added}\tearlier\t0\n")), "{list}");
    run(&["keys", "secret", "rotate", "--to", added, "--wait", "0s"]);

    let list = run(&["keys", "secret", "list"]);
    assert!(list.starts_with(&format!("{added}\tcurrent\t1\n")), "{list}");
    let after = fs::read_to_string(&path).unwrap();
    assert_eq!(after.lines().nth(1), before.lines().next());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let unknown = error_line(1, &run_in(folder.path(), &["keys", "secret", "remove", "0123456789abcdef"]));
    assert!(unknown.contains("has no key 0123456789abcdef, only"), "{unknown}");
    let current = error_line(1, &run_in(folder.path(), &["keys", "secret", "remove", added]));
    assert!(current.contains("make another key the first one before"), "{current}");
}
