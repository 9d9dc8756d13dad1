//! A server of another project (PostgreSQL, PgBouncer): it has a folder of its own, listens on a free
//! loopback port, and stops when the test process ends, even after a crash.
//!
//! PostgreSQL and PgBouncer refuse to run as root. If the tests run as root, the servers run as `postgres` or
//! `nobody`.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// Shell script that runs the server command `$2...` and then waits on its own standard input. A line stops
/// the server immediately, as a crash would, and keeps the folder `$1`. The end of the input (the test
/// process has ended) stops the server too and removes the folder. A server that a test froze gets SIGCONT
/// first: a frozen process would not handle SIGQUIT.
const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" & server=$!
read -r _; input=$?
kill -CONT "$server"; pkill -CONT -P "$server"
kill -QUIT "$server"; wait "$server"
[ "$input" -eq 0 ] || rm -rf "$folder"
"#;

/// A folder, a port, and the server process while it runs.
pub struct Daemon {
    folder: PathBuf,
    /// Account that the programs run as; `None` if the tests do not run as root.
    account: Option<Account>,
    port: u16,
    supervisor: Mutex<Option<Child>>,
}

impl Daemon {
    /// Creates an empty folder and chooses a free port; starts no process.
    pub fn prepare(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("kairos-{name}-")).tempdir().unwrap().keep();
        let daemon = Self {
            folder,
            account: Account::unprivileged(),
            port: free_port(),
            supervisor: Mutex::new(None),
        };
        daemon.chown_to_account(&daemon.folder);
        daemon
    }

    /// Returns the folder that holds all files of the server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the loopback port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of the file with the server's standard output and standard error.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Makes the account that runs the server the owner of `file`.
    pub fn chown_to_account(&self, file: &Path) {
        if let Some(account) = &self.account {
            chown(file, Some(account.user), Some(account.group)).unwrap();
        }
    }

    /// Returns a command that runs `program` under an account that is not root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match &self.account {
            None => Command::new(program),
            Some(account) => {
                let mut command = Command::new("setpriv");
                command.args(["--clear-groups", &format!("--reuid={}", account.user)]);
                command.arg(format!("--regid={}", account.group)).arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }

    /// Starts `server` under a shell that stops it when the test process ends; see [`SUPERVISOR`].
    pub fn start(&self, server: &Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&self.folder)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir("/")
            .process_group(0) // Ctrl-C must reach only the tests; the supervisor ends when its input closes
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.supervisor.lock().unwrap() = Some(supervisor);
    }

    /// Stops the server as a crash would: connections are closed and nothing is flushed. Keeps the folder.
    pub fn stop_immediate(&self) {
        let mut supervisor = self.supervisor.lock().unwrap().take().expect("the server runs");
        supervisor.stdin.take().expect("its input is a pipe").write_all(b"stop\n").unwrap();
        supervisor.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        match self.supervisor.get_mut().unwrap().take() {
            Some(mut supervisor) => {
                drop(supervisor.stdin.take());
                supervisor.wait().ok();
            }
            None => fs::remove_dir_all(&self.folder).unwrap_or_default(),
        }
    }
}

/// User id and group id of an account of the operating system.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Returns the account `postgres` or else `nobody`; `None` if the tests do not run as root.
    fn unprivileged() -> Option<Self> {
        let output = Command::new("id").arg("-u").output().unwrap();
        (output.stdout == b"0\n").then(|| {
            let accounts = fs::read_to_string("/etc/passwd").unwrap();
            Self::find(&accounts, "postgres")
                .or_else(|| Self::find(&accounts, "nobody"))
                .expect("the account `nobody` exists")
        })
    }

    fn find(accounts: &str, name: &str) -> Option<Self> {
        let mut fields =
            accounts.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
        Some(Self { user: fields.nth(2)?.parse().ok()?, group: fields.next()?.parse().ok()? })
    }
}

/// Returns a free port below the range of ephemeral ports, so that the system does not assign it to another
/// socket before the server starts.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap() + 20_000;
    loop {
        let offset = u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).expect("some port is free");
        if TcpListener::bind(("127.0.0.1", start + offset)).is_ok() {
            return start + offset;
        }
    }
}
