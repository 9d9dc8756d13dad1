//! Somebody else's server: in a folder of its own, on a free port of loopback, and gone when the test process is,
//! however it ends.
//!
//! PostgreSQL and PgBouncer refuse to run as root, so root's tests run them as `postgres` or `nobody`.

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

/// Runs the server given as `$2…` until told otherwise through its own input: a line stops the server at once, as a
/// crash would, and keeps folder `$1`; the end of the input (the tests are gone) also removes the folder. A server that
/// a test froze is woken first, since it would not hear of its end.
const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" & server=$!
read -r _; input=$?
kill -CONT "$server"; pkill -CONT -P "$server"
kill -QUIT "$server"; wait "$server"
[ "$input" -eq 0 ] || rm -rf "$folder"
"#;

/// The folder and the port, and the server while it runs.
pub struct Daemon {
    folder: PathBuf,
    /// Whom to become before starting a program; `None` when the tests do not run as root.
    account: Option<Account>,
    port: u16,
    supervisor: Mutex<Option<Child>>,
}

impl Daemon {
    /// An empty folder and a free port; nothing runs yet.
    pub fn prepare(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("kairos-{name}-")).tempdir().unwrap().keep();
        let daemon = Self {
            folder,
            account: Account::unprivileged(),
            port: free_port(),
            supervisor: Mutex::new(None),
        };
        daemon.hand_over(&daemon.folder);
        daemon
    }

    /// Where all of its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it prints.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Makes the account that runs the server the owner of `file`.
    pub fn hand_over(&self, file: &Path) {
        if let Some(account) = &self.account {
            chown(file, Some(account.user), Some(account.group)).unwrap();
        }
    }

    /// A program, run by an account that is not root.
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

    /// Starts `server` under a shell that outlives neither the tests nor the server; see [`SUPERVISOR`].
    pub fn start(&self, server: &Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&self.folder)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir("/")
            .process_group(0) // Ctrl-C is for the tests; the end of the input follows
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.supervisor.lock().unwrap() = Some(supervisor);
    }

    /// Stops the server as a crash would: connections are cut, nothing is flushed. The folder stays.
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

/// An account of the machine, by its numbers.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Whom root becomes; `None` for everybody else.
    fn unprivileged() -> Option<Self> {
        let output = Command::new("id").arg("-u").output().unwrap();
        (output.stdout == b"0\n").then(|| {
            let accounts = fs::read_to_string("/etc/passwd").unwrap();
            Self::find(&accounts, "postgres")
                .or_else(|| Self::find(&accounts, "nobody"))
                .expect("nobody exists")
        })
    }

    fn find(accounts: &str, name: &str) -> Option<Self> {
        let mut fields =
            accounts.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
        Some(Self { user: fields.nth(2)?.parse().ok()?, group: fields.next()?.parse().ok()? })
    }
}

/// A port that nobody listens on, below those that the system hands out by itself, so that it is still free later.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap() + 20_000;
    loop {
        let offset = u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).expect("some port is free");
        if TcpListener::bind(("127.0.0.1", start + offset)).is_ok() {
            return start + offset;
        }
    }
}
