//! The file of a SQLite database: complete after a stop, watched while it is open, and not replaced by an
//! empty one.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use diesel::{
    Connection, QueryDsl, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_types::Integer,
};
use kairos_identity::proto::ResolveTokenRequest;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    engine::{Engine, TestDatabase},
    errors::assert_refused,
    people::{by_email, registration},
    program::{assert_contains_all, error_line, run_in, stderr, stdout},
    server::TestServer,
    wait::until,
};

/// Time within which the service notices that its file was moved, deleted or replaced.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);

diesel::table! {
    core_user (id) {
        id -> BigInt,
    }
}

fn path_of(database: &TestDatabase) -> PathBuf {
    database.url().strip_prefix("sqlite://").unwrap().into()
}

/// Returns the path of a file that belongs to the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Returns the number of users in a copy of the file alone, without its WAL.
fn users_in_file_alone(path: &Path) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.sqlite3");
    fs::copy(path, &copy).unwrap();
    let mut connection = SqliteConnection::establish(copy.to_str().unwrap()).unwrap();
    usize::try_from(core_user::table.count().get_result::<i64>(&mut connection).unwrap()).unwrap()
}

/// A backup that is restored without removing the WAL of the file that it replaces.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_beside_the_wal_of_another_file_is_not_changed() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let mut server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    // Otherwise the WAL has every page, and replaces the whole file.
    server.terminate();
    assert!(server.wait().await.success());
    server.restart().await;
    let backup = path.with_file_name("backup.sqlite3");
    let backed_up = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();
    assert!(backed_up.status.success(), "{}", stderr(&backed_up));
    // Too few for a checkpoint, after which the WAL would begin again.
    for number in 0..5 {
        server.unverified_user(&format!("later{number}")).await;
    }
    server.kill_9();
    fs::rename(&backup, &path).unwrap();
    let content = || [path.clone(), beside(&path, "-wal")].map(|path| fs::read(path).unwrap());
    let before = content();

    for command in [&["user", "list"][..], &["doctor"], &["migrate"], &["serve"]] {
        let refused = server.command(command).output().unwrap();
        let said = stdout(&refused) + &stderr(&refused);
        assert_contains_all(&said, &["belong to another one", "remove -wal and -shm"]);
        assert!(!refused.status.success() && content() == before, "{command:?} has changed a file");
    }

    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    server.restart().await;
    let found = server.client().await.find_user(by_email(&ada.email)).await.unwrap().into_inner();
    assert_eq!(found.user, Some(ada));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_alone_is_complete_after_a_stop() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let mut server = TestServer::on_url(database.url().to_owned()).start().await;
    server.unverified_user("ada").await;
    server.terminate();
    assert!(server.wait().await.success());
    assert_eq!(users_in_file_alone(&path), 1);
    assert!(!beside(&path, "-wal").exists());

    // Another program has the file open, so SQLite does not delete the WAL.
    server.restart().await;
    server.unverified_user("bob").await;
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("SELECT count(*) FROM core_user").unwrap();
    server.terminate();
    assert!(server.wait().await.success());
    let wal_bytes = || fs::metadata(beside(&path, "-wal")).unwrap().len();
    assert_eq!(wal_bytes(), 0);
    let verified = server.command(&["user", "verify", "ada"]).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(wal_bytes(), 0, "a command leaves no WAL either");
    drop(other);
    assert_eq!(users_in_file_alone(&path), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_or_replaced_is_not_served() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;
    let resolve = || ResolveTokenRequest { auth_token: ada.auth_token.clone() };
    let status = async || {
        let request = HealthCheckRequest { service: "kairos.identity.v1.LookupService".to_owned() };
        HealthClient::new(server.channel().await).check(request).await.unwrap().into_inner().status()
    };
    let aside = beside(&path, ".aside");

    for replacement in [None, Some("another file")] {
        fs::rename(&path, &aside).unwrap();
        if let Some(text) = replacement {
            fs::write(&path, text).unwrap();
        }
        let began = Instant::now();
        // A write notices the change at once, so nothing is acknowledged that the next start would not find.
        let refusal = client.register(registration("bob")).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
        until("look-ups are refused", NOTICE_LIMIT, async || client.resolve_token(resolve()).await.err())
            .await;
        assert!(began.elapsed() < NOTICE_LIMIT, "{:?}", began.elapsed());
        until("health reports NOT_SERVING", Duration::from_secs(5), async || {
            (status().await == ServingStatus::NotServing).then_some(())
        })
        .await;
        let log =
            server.logged("was moved, deleted or replaced while it was open; it is no longer served").await;
        assert!(log.contains(path.to_str().unwrap()), "{log}");

        fs::rename(&aside, &path).unwrap();
        until("look-ups work", NOTICE_LIMIT, async || client.resolve_token(resolve()).await.ok()).await;
    }
    client.register(registration("bob")).await.unwrap();
    client.find_user(by_email("bob@example.com")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_an_older_copy_overwrites_in_place_is_not_served() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let mut server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    let backup = beside(&path, ".backup");
    let made = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    // The number in the header of the file grows with each write check that a checkpoint moves into it.
    let header = || {
        let mut number = [0; 4];
        fs::File::open(&path).unwrap().read_exact_at(&mut number, 60).unwrap();
        i32::from_be_bytes(number)
    };
    let before = header();
    let mut number = 0;
    until("a checkpoint after the backup", Duration::from_mins(1), async || {
        server.unverified_user(&format!("user{number}")).await;
        number += 1;
        (header() > before && number > 20).then_some(())
    })
    .await;
    let length = fs::metadata(&path).unwrap().len();

    // Not truncated, and not shorter: as `dd conv=notrunc` and `rsync --inplace` write.
    let began = Instant::now();
    fs::File::options().write(true).open(&path).unwrap().write_all(&fs::read(&backup).unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), length);
    let mut client = server.client().await;
    let refusal = client.register(registration("bob")).await.unwrap_err();
    assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    let resolve = || ResolveTokenRequest { auth_token: ada.auth_token.clone() };
    until("look-ups are refused", NOTICE_LIMIT, async || client.resolve_token(resolve()).await.err()).await;
    assert!(began.elapsed() < NOTICE_LIMIT, "{:?}", began.elapsed());
    server.logged("was truncated or overwritten while it was open; it is no longer served").await;

    // A stop moves nothing of the WAL into it.
    let overwritten = fs::read(&path).unwrap();
    server.terminate();
    // The results of mails that cannot be recorded do not hold it up until the deadline.
    assert!(server.wait().await.success());
    assert!(fs::read(&path).unwrap() == overwritten, "the file was written to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_its_latest_backup_overwrites_or_replaces_the_content_of_is_not_served() {
    for online in [false, true] {
        let database = TestDatabase::new(Engine::Sqlite);
        let path = path_of(&database);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.unverified_user("ada").await;
        // A write check gives the file its number.
        let number = async || {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            let number =
                diesel::select(diesel::dsl::sql::<Integer>("(SELECT user_version FROM pragma_user_version)"));
            Some(number.get_result::<i32>(&mut connection).unwrap()).filter(|number| *number > 0)
        };
        until("a write check", Duration::from_secs(10), number).await;
        let backup = beside(&path, ".backup");
        let made = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        server.unverified_user("bob").await;

        if online {
            // As the command `.restore` of SQLite's shell does, within a transaction of SQLite.
            let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            other.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE; DELETE FROM core_mail_token; \
                DELETE FROM core_mail_outbox; DELETE FROM core_user WHERE username = 'bob'; PRAGMA user_version = 0; COMMIT").unwrap();
        } else {
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all(&fs::read(&backup).unwrap())
                .unwrap();
        }
        server.logged("was truncated or overwritten while it was open; it is no longer served").await;
        let refusal = server.client().await.register(registration("eve")).await.unwrap_err();
        assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_nothing_into_a_file_that_was_restored_while_it_was_open() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let mut server = TestServer::on_url(database.url().to_owned()).start().await;
    server.unverified_user("ada").await;
    let backup = beside(&path, ".backup");
    let made = server.command(&["backup", "--to", backup.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for number in 0..20 {
        server.unverified_user(&format!("user{number}")).await;
    }

    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    // Not truncated first: the service could read it at that moment, and would be ended by SIGBUS.
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all(&fs::read(&backup).unwrap()).unwrap();
    server.logged("it is no longer served").await;
    server.terminate();
    assert!(server.wait().await.success());

    assert_eq!(users_in_file_alone(&path), 1);
    let listed = server.command(&["user", "list"]).output().unwrap();
    assert!(listed.status.success() && stdout(&listed).contains("ada@example.com"), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_deleted_is_noticed_without_a_write() {
    let database = TestDatabase::new(Engine::Sqlite);
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let ada = server.unverified_user("ada").await;
    let mut client = server.client().await;

    fs::remove_file(path_of(&database)).unwrap();

    let resolve = || ResolveTokenRequest { auth_token: ada.auth_token.clone() };
    let refused =
        until("look-ups are refused", NOTICE_LIMIT, async || client.resolve_token(resolve()).await.err());
    assert_refused(&refused.await, Code::Unavailable, "STORE_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_index_of_the_wal_is_noticed_before_another_program_makes_a_second_one() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let mut server = TestServer::on_url(database.url().to_owned()).start().await;
    for number in 0..20 {
        server.unverified_user(&format!("user{number}")).await;
    }

    fs::remove_file(beside(&path, "-shm")).unwrap();
    server.logged("it is no longer served").await;
    let refusal = server.client().await.register(registration("late")).await.unwrap_err();
    assert_refused(&refusal, Code::Unavailable, "STORE_UNAVAILABLE");
    // A command writes with an index of its own, and the service must not write beside it, not even when it
    // stops.
    let disabled = server.command(&["user", "disable", "user3@example.com"]).output().unwrap();
    assert!(disabled.status.success(), "{disabled:?}");
    server.terminate();
    assert!(server.wait().await.success());

    let listed = server.command(&["user", "list"]).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(
        stdout(&listed).lines().filter(|line| line.contains("@example.com")).count(),
        20,
        "{listed:?}"
    );
    let disabled = server.command(&["user", "list", "--disabled"]).output().unwrap();
    assert!(stdout(&disabled).contains("user3@example.com"), "{disabled:?}");
}

#[test]
fn no_empty_database_is_created_beside_the_files_of_a_lost_one() {
    let folder = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", "sqlite://db.sqlite3"];
    let migrate = ["migrate", "--database-url", "sqlite://db.sqlite3"];
    let write = |name: &str| fs::write(folder.path().join(name), "left over").unwrap();

    write("db.sqlite3.key");
    let refusal = error_line(1, &run_in(folder.path(), &serve));
    assert!(refusal.contains("db.sqlite3.key") && refusal.contains("kairos-identity migrate"), "{refusal}");
    write("db.sqlite3-wal");
    for command in [&serve[..], &migrate] {
        let refusal = error_line(1, &run_in(folder.path(), command));
        assert!(refusal.contains("db.sqlite3-wal") && refusal.contains("missing or empty"), "{refusal}");
    }
    assert!(!folder.path().join("db.sqlite3").exists());
    assert_eq!(fs::read(folder.path().join("db.sqlite3-wal")).unwrap(), b"left over");

    // Without the WAL nothing can be lost, and `migrate` is the way to create a database with this key.
    fs::remove_file(folder.path().join("db.sqlite3-wal")).unwrap();
    let created = run_in(folder.path(), &migrate);
    assert!(created.status.success(), "{created:?}");
    assert!(!folder.path().join("db.sqlite3-wal").exists());

    // A file whose tables were still in its lost WAL is not taken for a new one.
    let file = folder.path().join("db.sqlite3");
    fs::remove_file(&file).unwrap();
    SqliteConnection::establish(file.to_str().unwrap())
        .unwrap()
        .batch_execute("PRAGMA journal_mode = WAL")
        .unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 4_096);
    let refusal = error_line(1, &run_in(folder.path(), &serve));
    assert!(refusal.contains("missing or empty") && refusal.contains("db.sqlite3.key"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_checkpoints_is_named_in_the_log() {
    let database = TestDatabase::new(Engine::Sqlite);
    let path = path_of(&database);
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let mut reader = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM core_user").unwrap();
    for name in ["ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "joe"] {
        server.unverified_user(name).await;
    }

    let log = server.logged("cannot be checkpointed and grows").await;

    assert!(log.contains(&format!("with pid {}", std::process::id())), "{log}");
}
