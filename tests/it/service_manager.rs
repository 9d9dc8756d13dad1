//! What a service manager such as systemd sees: the reports of the service, its unit and its user.

use std::{fs, os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration};

use tempfile::TempDir;

use crate::support::{engine::Engine, server::TestServer};

/// Largest exposure level of the unit, as `systemd-analyze security` calculates it: 0 is the least.
const EXPOSURE_MAX: f32 = 1.5;

/// The socket of a service manager, and what services report to it.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { folder, socket }
    }

    fn address(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// Waits for the next report.
    fn report(&self) -> String {
        let mut buffer = [0; 1_024];
        let length = self.socket.recv(&mut buffer).expect("the service reports its state");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }
}

fn deploy(file: &str) -> String {
    format!("{}/deploy/systemd/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn a_service_reports_that_it_is_ready_then_alive_and_then_stopping() {
    let manager = Manager::start();
    let builder = TestServer::builder(Engine::Sqlite).with_env("NOTIFY_SOCKET", &manager.address());
    let mut server = builder.with_env("WATCHDOG_USEC", "200000").start().await;
    assert_eq!(manager.report(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.report(), "WATCHDOG=1");
    }

    server.terminate();
    let mut reports = std::iter::repeat_with(|| manager.report());
    let after = reports.find(|report| report != "WATCHDOG=1");
    assert_eq!(after.as_deref(), Some("STOPPING=1"));
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn a_service_without_a_watchdog_reports_only_its_state() {
    let manager = Manager::start();
    let mut server =
        TestServer::builder(Engine::Sqlite).with_env("NOTIFY_SOCKET", &manager.address()).start().await;
    assert_eq!(manager.report(), "READY=1");
    server.terminate();
    assert_eq!(manager.report(), "STOPPING=1");
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn a_service_whose_manager_has_gone_serves() {
    let manager = Manager::start();
    let address = manager.address();
    drop(manager);
    let server = TestServer::builder(Engine::Sqlite).with_env("NOTIFY_SOCKET", &address).start().await;
    server.logged("The service manager did not receive the state").await;
    server.unverified_user("ada").await;
}

#[test]
fn the_unit_gives_the_service_only_what_it_needs() {
    let unit = deploy("kairos-identity.service");
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &unit])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&analyzed.stdout);
    let level = text.lines().find_map(|line| line.split_once("Overall exposure level for"));
    let level = level.and_then(|(_, rest)| rest.split_once(": ")).map(|(_, level)| level).unwrap();
    let level: f32 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= EXPOSURE_MAX, "{text}");
}

#[test]
fn the_unit_is_valid() {
    // The program of the unit need not be installed where this runs, so the copy names an existing one.
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(deploy("kairos-identity.service")).unwrap();
    let copy = folder.path().join("kairos-identity.service");
    fs::write(&copy, unit.replace("/usr/bin/kairos-identity ", "/bin/true ")).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output().unwrap();
    let findings = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && findings.is_empty(), "{findings}");
}

#[test]
fn the_user_of_the_unit_is_created_with_its_folder() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let created = Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg(deploy("kairos-identity.sysusers"))
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("kairos-identity:")).unwrap();
    let (home, shell) = (user.split(':').nth(5), user.split(':').nth(6));
    assert_eq!((home, shell), (Some("/var/lib/kairos-identity"), Some("/usr/sbin/nologin")));
    assert!(Path::new(&deploy("kairos-identity.service")).is_file());
}
