//! A PostgreSQL of the tests' own: a throwaway cluster on loopback, gone when the test process is.
//!
//! Durability is as in production (`fsync` on), since tests kill things in the middle.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{daemon::Daemon, tls::Certificate, wait::until_blocking};

/// A slow disk makes `initdb` and the first start slow.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A cluster of PostgreSQL.
pub struct Postgres {
    server: Daemon,
    databases: AtomicU32,
}

/// A fresh, empty database of a cluster.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    name: String,
    url: String,
}

impl PostgresDatabase {
    /// Where it is, as the superuser finds it: `postgres://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The database of the same name on another port of loopback, as `role` finds it.
    pub fn url_at(&self, port: u16, role: &str) -> String {
        url(port, role, &self.name)
    }
}

fn url(port: u16, role: &str, database: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")
}

impl Postgres {
    /// The cluster that most tests share, started by the first of them.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::own)
    }

    /// A running cluster for a test that stops it.
    pub fn own() -> Self {
        Self::made_with(|data, server| {
            let mut command = server.command(program("initdb"));
            command.arg("-D").arg(data);
            command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
            command
        })
    }

    /// A running cluster whose data come from a command, which is told where they belong.
    pub(super) fn made_with(make: impl FnOnce(&Path, &Daemon) -> Command) -> Self {
        let cluster = Self { server: Daemon::prepare("pg"), databases: AtomicU32::new(0) };
        let output = make(&cluster.data(), &cluster.server).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster.start();
        cluster
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// A new database; nothing else uses it.
    pub fn create_database(&self) -> PostgresDatabase {
        let name = format!("kairos_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        PostgresDatabase { url: url(self.port(), "postgres", &name), name }
    }

    /// Runs `sql` in `database` as its superuser; the rows as `psql -At` prints them.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql refused {sql:?}: {error}"))
    }

    /// The same, for statements that may be refused.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = psql(&format!("postgres://postgres@127.0.0.1:{}/{database}", self.port()), sql);
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Stops the server as a crash would: connections are cut, nothing is flushed. The data stay.
    pub fn stop_immediate(&self) {
        self.server.stop_immediate();
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Ends [`Postgres::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// To the server, and to the processes that serve its connections: the first makes the others, so it comes first.
    fn signal(&self, signal: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server = file.lines().next().expect("the first line is the process");
        assert!(
            Command::new("sh").args(["-c", &format!("kill {signal} {server}")]).status().unwrap().success()
        );
        assert!(Command::new("pkill").args([signal, "-P", server]).status().unwrap().success());
    }

    /// From here on takes no connection over TCP but with TLS, with this certificate.
    pub fn require_tls(&self, own: &Certificate) {
        for (source, name) in [(own.certificate(), "server.crt"), (own.key(), "server.key")] {
            let target = self.data().join(name);
            fs::copy(source, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            self.server.hand_over(&target);
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        fs::write(self.data().join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        self.stop_immediate();
        self.start();
    }

    /// Starts the server, on the same port as before, and waits until it answers.
    pub fn start(&self) {
        let port = self.port().to_string();
        let mut command = self.server.command(program("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &port]).arg("-k").arg(self.server.folder());
        for setting in ["listen_addresses=127.0.0.1", "max_connections=400", "shared_buffers=32MB"] {
            command.args(["-c", setting]);
        }
        self.server.start(&command);
        until_blocking(
            &format!("PostgreSQL answers; its log is {}", self.server.log().display()),
            START_LIMIT,
            || {
                Command::new(program("pg_isready"))
                    .args(["-q", "-h", "127.0.0.1", "-p", &port])
                    .status()
                    .is_ok_and(|status| status.success())
                    .then_some(())
            },
        );
    }

    fn data(&self) -> PathBuf {
        self.server.folder().join("data")
    }
}

/// Runs `sql` in the database of a URL.
pub(super) fn psql(url: &str, sql: &str) -> Output {
    Command::new(program("psql"))
        .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .output()
        .unwrap()
}

/// A program of PostgreSQL, of the newest of Debian's releases or of one of the `PATH`.
pub(super) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(find_programs).join(name)
}

/// The folder with `initdb`, `postgres`, `psql` and `pg_basebackup`.
fn find_programs() -> PathBuf {
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    installed.sort_by_key(|folder| {
        folder.parent().and_then(|version| version.file_name()?.to_str()?.parse::<u32>().ok())
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_complete = |folder: &Path| {
        ["initdb", "postgres", "psql", "pg_basebackup"].iter().all(|name| folder.join(name).is_file())
    };
    installed
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path))
        .find(|folder| is_complete(folder))
        .expect("PostgreSQL's server programs are missing: run `scripts/setup test` (Debian: apt-get install postgresql)")
}
