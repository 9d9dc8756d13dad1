//! Files that the program publishes, on a disk that is full: no file is empty or half, and nothing is
//! reported as written that is not.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kairos_identity::proto::identity_service_client::IdentityServiceClient;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    engine::Engine,
    mail::{mails_to, wait_for_mails},
    people::{address, registration},
    program::{error_line, program},
    server::TestServer,
    wait::until,
};

/// Time limit for a log message that a test waits for.
const LOG_LIMIT: Duration = Duration::from_secs(20);

/// Returns the names in a folder.
fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Wraps a command so that its writes to a file beyond this size fail, as on a full disk.
fn with_small_files(command: &Command, bytes: u64) -> Command {
    let mut wrapped = Command::new("sh");
    // The signal that the kernel sends with the error would end the process.
    wrapped.args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\": \"$@\"", &bytes.to_string()]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    wrapped
}

/// A service whose writes to files beyond a size fail. It is killed when the value is dropped.
struct Limited {
    process: Child,
    cat: Child,
    log: tempfile::TempDir,
}

impl Limited {
    /// Starts a second service with the database and the mail folder of `server`.
    fn start(server: &TestServer, bytes: u64) -> Self {
        let log = tempfile::tempdir().unwrap();
        let mail_url = format!("file://{}", server.mail_folder().display());
        let mut command = server.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
        command.args(["--mail-url", &mail_url]);
        // `cat` writes the log, so that the limit does not apply to it.
        let file = File::create(log.path().join("log")).unwrap();
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
        let pipe = cat.stdin.take().unwrap();
        let process = with_small_files(&command, bytes).stdout(Stdio::null()).stderr(pipe).spawn().unwrap();
        Self { process, cat, log }
    }

    /// Waits until the log contains `text`, and returns the whole log.
    async fn logged(&self, text: &str) -> String {
        let read = || fs::read_to_string(self.log.path().join("log")).unwrap();
        let log = async || Some(read()).filter(|log| log.contains(text));
        until(&format!("the log contains {text}"), LOG_LIMIT, log).await
    }

    /// Returns the gRPC address of the service, once it serves.
    async fn url(&self) -> String {
        let log = self.logged("Serving gRPC on ").await;
        let (_, rest) = log.split_once("Serving gRPC on ").unwrap();
        let address = rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:".contains(c))).next().unwrap();
        format!("http://{}", address.trim_end_matches(['.', ':']))
    }

    async fn register(&self, name: &str) {
        IdentityServiceClient::connect(self.url().await)
            .await
            .unwrap()
            .register(registration(name))
            .await
            .unwrap();
    }

    /// Removes the limit.
    fn free_space(&self) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.process.id().to_string(), "--fsize=unlimited:"])
            .status()
            .unwrap();
        assert!(status.success(), "prlimit failed: {status}");
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        // `cat` ends when its input ends.
        self.cat.wait().ok();
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_does_not_fit_on_the_disk_is_retried_and_leaves_no_file() {
    let mut server = TestServer::builder(Engine::Postgres)
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_FIRST", "200ms")
        .with_env("KAIROS_IDENTITY_MAIL_RETRY_MAX", "500ms")
        .with_env("KAIROS_IDENTITY_MAIL_POLL_INTERVAL", "50ms")
        .start()
        .await;
    server.kill_9();
    let limited = Limited::start(&server, 1_000);
    for name in ["ada", "bob", "cyd"] {
        limited.register(name).await;
    }
    let log = limited.logged("Mail delivery failed; retrying").await;
    assert!(!log.contains("Mail sent"), "{log}");
    for name in names(&server.mail_folder()) {
        assert!(has_extension(&name, "part"), "{name} is in the mail folder");
    }

    limited.free_space();

    for name in ["ada", "bob", "cyd"] {
        assert_eq!(wait_for_mails(&server, &address(name), 1).await[0].token().len(), 43);
        assert_eq!(mails_to(&server.mail_folder(), &address(name)).len(), 1);
    }
    assert!(names(&server.mail_folder()).iter().all(|name| has_extension(name, "eml")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_database_cannot_grow_serves_look_ups_only() {
    let mut server = TestServer::start(Engine::Sqlite).await;
    server.unverified_user("ada").await;
    server.kill_9();
    // The WAL that the kill has left is longer than this, so nothing can be appended to it.
    let limited = Limited::start(&server, 65_536);
    let url = limited.url().await;
    let status = async |service: &str| {
        let channel = Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let mut client = HealthClient::new(channel);
        client.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner().status()
    };
    let becomes = async |expected| {
        until(&format!("health becomes {expected:?}"), LOG_LIMIT, async || {
            let look_ups = status("kairos.identity.v1.LookupService").await;
            (status("").await == expected && look_ups == ServingStatus::Serving).then_some(())
        })
        .await;
    };

    becomes(ServingStatus::NotServing).await;
    limited.free_space();
    becomes(ServingStatus::Serving).await;
    limited.register("bob").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_deletes_the_unfinished_mails_of_a_killed_run() {
    let mut server = TestServer::start(Engine::Sqlite).await;
    server.kill_9();
    let leftover = server.mail_folder().join(".1-x@kairos.example.eml.0000002a00000001.part");
    fs::write(&leftover, "half").unwrap();
    fs::write(server.mail_folder().join("download.part"), "another program's").unwrap();

    server.restart().await;

    assert_eq!(names(&server.mail_folder()), ["download.part"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_on_the_disk_leaves_no_file() {
    let server = TestServer::start(Engine::Sqlite).await;
    server.client().await.register(registration("ada")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".old.sqlite3.0000002a00000001.part"), "half").unwrap();
    let backup = folder.path().join("backup.sqlite3");

    let command = server.command(&["backup", "--to", backup.to_str().unwrap()]);
    let output = with_small_files(&command, 40_000).output().unwrap();

    assert!(!output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("backed up"), "{output:?}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_on_the_disk_leaves_no_file() {
    let server = TestServer::start(Engine::Postgres).await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("new/folder/new.key");
    let mut command = server.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
    command.arg("--secret-key-file").arg(&key);

    let output = with_small_files(&command, 20).output().unwrap();

    assert!(!output.status.success(), "{output:?}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_or_report_that_does_not_fit_on_the_disk_leaves_no_file() {
    let server = TestServer::start(Engine::Postgres).await;
    server.client().await.register(registration("ada")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url_of = |file: &str| format!("sqlite://{}", folder.path().join(file).display());
    for file in ["django.sqlite3", "new/folder/django.sqlite3"] {
        let command = server.command(&["export", "django", "--to", &url_of(file)]);
        let output = with_small_files(&command, 4_000).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
    }
    let url = url_of("django.sqlite3");
    assert!(server.command(&["export", "django", "--to", &url]).output().unwrap().status.success());
    assert_eq!(names(folder.path()), ["django.sqlite3"]);

    let report = folder.path().join("report.json");
    let command = server.command(&["import", "verify", "--from", &url, "--report", report.to_str().unwrap()]);
    let output = with_small_files(&command, 50).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(names(folder.path()), ["django.sqlite3"]);
}

#[test]
fn man_pages_that_do_not_fit_on_the_disk_leave_the_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["man", "--to", folder.path().to_str().unwrap()]);
    command.current_dir(folder.path());
    for earlier in [false, true] {
        let page = folder.path().join("kairos-identity.1");
        if earlier {
            fs::write(&page, "earlier").unwrap();
        }
        // Some pages fit, and the longest does not.
        let failure = error_line(1, &with_small_files(&command, 4_000).output().unwrap());
        assert!(failure.contains("larger than the system allows"), "{failure}");
        assert_eq!(names(folder.path()).len(), usize::from(earlier), "{:?}", names(folder.path()));
        assert_eq!(fs::read_to_string(page).unwrap_or_default(), if earlier { "earlier" } else { "" });
    }
    assert!(command.output().unwrap().status.success());
    assert!(names(folder.path()).iter().all(|name| name.ends_with(".1")), "{:?}", names(folder.path()));
    assert!(names(folder.path()).len() > 20);
}
