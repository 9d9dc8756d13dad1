//! The process of a [`TestServer`]: its start, its signals and limits, and its exit.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, ExitStatus},
    time::Duration,
};

use super::TestServer;
use crate::support::wait::until;

/// Log text that the service writes once it serves; the address follows.
const SERVING: &str = "Serving gRPC on ";

/// Time limit from the start of the process to [`SERVING`], on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Time limit for the exit of the process: longer than the default drain deadline of 30 s.
const EXIT_LIMIT: Duration = Duration::from_secs(45);

/// Returns the resident memory of a process in MiB, without the pages of the files that it has mapped (Linux
/// only). Those are read from the program's file when its code first runs; no peer occupies them.
pub fn resident_mib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

impl TestServer {
    /// True if the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Returns the number of the process.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the service runs").id()
    }

    /// Returns what [`resident_mib`] does.
    pub fn resident_mib(&self) -> u64 {
        resident_mib(self.process_id())
    }

    /// Sets the soft limit of open files to `more` above the number now open, or to 4096 for `None` (Linux
    /// only).
    pub fn limit_open_files(&self, more: Option<usize>) {
        let id = self.process_id();
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let soft = more.map_or("4096".to_owned(), |more| (open + more).to_string());
        let status = Command::new("prlimit")
            .arg(format!("--pid={id}"))
            .arg(format!("--nofile={soft}:"))
            .status()
            .unwrap();
        assert!(status.success(), "prlimit failed: {status}");
    }

    /// Kills the process with SIGKILL: no destructor runs and nothing is flushed.
    pub fn kill_9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends SIGTERM; [`TestServer::wait`] waits for the exit.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal `name`, for example `HUP`.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("the service runs").id();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(status.success(), "the signal {name} was not delivered: {status}");
    }

    /// Waits until the process exits, and returns its status.
    pub async fn wait(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the service was started");
        let status = until("the service exits", EXIT_LIMIT, async || process.try_wait().unwrap()).await;
        self.process = None;
        status
    }

    /// Kills the process if it runs, and starts the service again on the same database and another port.
    pub async fn restart(&mut self) {
        self.kill_9();
        self.launch().await;
    }

    pub(super) async fn launch(&mut self) {
        let seen = self.log().len();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        self.process =
            Some(self.serve_command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let limit = START_LIMIT;
        let address = until("the service logs that it serves", limit, async || self.find_address(seen)).await;
        self.address = Some(address);
    }

    /// Returns the gRPC address from the part of the log after byte `seen`, or `None` if the service does not
    /// serve yet; panics if the process has exited.
    fn find_address(&mut self, seen: usize) -> Option<SocketAddr> {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
        let log = self.log();
        let address = log.get(seen..)?.split_once(SERVING).map(|(_, rest)| {
            rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).next().unwrap_or_default()
        });
        assert!(address.is_some() || ended.is_none(), "the service ended with {ended:?}:\n{log}");
        address?.trim_end_matches(['.', ':']).parse().ok()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill_9();
        if std::thread::panicking() {
            eprintln!("---- the service's log ----\n{}", self.log());
        }
    }
}
