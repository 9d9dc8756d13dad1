//! A PostgreSQL of the tests' own: a throwaway cluster on loopback, gone when the test process is, however it ends.
//!
//! Durability is as in production (`fsync` on), since tests kill things in the middle. PostgreSQL refuses to run as
//! root, so root's tests run it as `postgres` or `nobody`.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{tls::Certificate, wait::until_blocking};

/// A slow disk makes `initdb` and the first start slow.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Runs the server given as `$2…` until told otherwise through its own input: a line stops the server at once, as a
/// crash would, and keeps the data in folder `$1`; the end of the input (the tests are gone) stops it and removes them.
const SUPERVISOR: &str = r#"
folder=$1; shift
"$@" & server=$!
if read -r _; then
  kill -QUIT "$server"; wait "$server"
else
  kill -INT "$server"; wait "$server"; rm -rf "$folder"
fi
"#;

/// A cluster of PostgreSQL.
pub struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    /// Whom to become before starting a program; `None` when the tests do not run as root.
    account: Option<Account>,
    port: u16,
    supervisor: Mutex<Option<Child>>,
    databases: AtomicU32,
}

/// A fresh, empty database of a cluster.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    url: String,
}

impl PostgresDatabase {
    /// Where it is: `postgres://…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Postgres {
    /// The cluster that most tests share, started by the first of them.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::own)
    }

    /// A running cluster for a test that stops it.
    pub fn own() -> Self {
        let programs = find_programs();
        let folder = tempfile::Builder::new().prefix("kairos-pg-").tempdir().unwrap().keep();
        let account = Account::unprivileged();
        if let Some(account) = &account {
            chown(&folder, Some(account.user), Some(account.group)).unwrap();
        }
        let cluster = Self {
            folder,
            programs,
            account,
            port: free_port(),
            supervisor: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        cluster.initialise();
        cluster.start();
        cluster
    }

    /// A new database; nothing else uses it.
    pub fn create_database(&self) -> PostgresDatabase {
        let name = format!("kairos_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        PostgresDatabase {
            url: format!("postgres://postgres@127.0.0.1:{}/{name}?sslmode=disable", self.port),
        }
    }

    /// Runs `sql` in `database` as its superuser; the rows as `psql -At` prints them.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql refused {sql:?}: {error}"))
    }

    /// The same, for statements that may be refused.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Stops the server as a crash would: connections are cut, nothing is flushed. The data stay.
    pub fn stop_immediate(&self) {
        let mut supervisor = self.supervisor.lock().unwrap().take().expect("the cluster runs");
        supervisor.stdin.take().expect("its input is a pipe").write_all(b"stop\n").unwrap();
        supervisor.wait().unwrap();
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Ends [`Postgres::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// To the server and to the processes that serve its connections, the children of the first.
    fn signal(&self, signal: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server = file.lines().next().expect("the first line is the process");
        assert!(Command::new("pkill").args([signal, "-P", server]).status().unwrap().success());
        assert!(
            Command::new("sh").args(["-c", &format!("kill {signal} {server}")]).status().unwrap().success()
        );
    }

    /// From here on takes no connection over TCP but with TLS, with this certificate.
    pub fn require_tls(&self, own: &Certificate) {
        for (source, name) in [(own.certificate(), "server.crt"), (own.key(), "server.key")] {
            let target = self.data().join(name);
            fs::copy(source, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some(account) = &self.account {
                chown(&target, Some(account.user), Some(account.group)).unwrap();
            }
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        fs::write(self.data().join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        self.stop_immediate();
        self.start();
    }

    /// Starts the server, on the same port as before, and waits until it answers.
    pub fn start(&self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]).arg("-k").arg(&self.folder);
        for setting in ["listen_addresses=127.0.0.1", "max_connections=400", "shared_buffers=32MB"] {
            command.args(["-c", setting]);
        }
        *self.supervisor.lock().unwrap() = Some(self.supervise(&command));
        until_blocking(
            &format!("PostgreSQL answers; its log is {}", self.log().display()),
            START_LIMIT,
            || {
                self.command("pg_isready")
                    .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                    .status()
                    .is_ok_and(|status| status.success())
                    .then_some(())
            },
        );
    }

    fn initialise(&self) {
        let output = self
            .command("initdb")
            .arg("-D")
            .arg(self.data())
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts `server` under a shell that outlives neither the tests nor the server; see [`SUPERVISOR`].
    fn supervise(&self, server: &Command) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        Command::new("sh")
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
            .unwrap()
    }

    /// A program of PostgreSQL, run by an account that is not root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
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

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Postgres {
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

/// The folder with `initdb`, `postgres` and `psql`: the newest of Debian's, or one of the `PATH`.
fn find_programs() -> PathBuf {
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    installed.sort_by_key(|folder| {
        folder.parent().and_then(|version| version.file_name()?.to_str()?.parse::<u32>().ok())
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_complete =
        |folder: &Path| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
    installed
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path))
        .find(|folder| is_complete(folder))
        .expect("PostgreSQL's server programs are missing: run `scripts/setup test` (Debian: apt-get install postgresql)")
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
