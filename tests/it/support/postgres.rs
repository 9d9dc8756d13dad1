//! A temporary PostgreSQL cluster on loopback, which is removed when the test process ends.
//!
//! Durability is as in production (`fsync` is on), since tests kill servers in the middle of writes.

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

/// Time limit for the start: a slow disk makes the first start slow.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A PostgreSQL cluster.
pub struct Postgres {
    server: Daemon,
    databases: AtomicU32,
    language: Option<&'static str>,
}

/// A new, empty database of a cluster.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    name: String,
    url: String,
}

impl PostgresDatabase {
    /// Returns the URL for the superuser: `postgres://postgres@...`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the name of the database on its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the URL of the database of the same name on another loopback port, for `role`.
    pub fn url_at(&self, port: u16, role: &str) -> String {
        url(port, role, &self.name)
    }
}

fn url(port: u16, role: &str, database: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")
}

impl Postgres {
    /// Returns the cluster that most tests share; the first call starts it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::own)
    }

    /// Starts a cluster for one test, for example for a test that stops it.
    pub fn own() -> Self {
        Self::create_with(initdb)
    }

    /// Starts a cluster whose messages are in `language`, for example `de`.
    pub fn own_in(language: &'static str) -> Self {
        Self::create_in(Some(language), initdb)
    }

    /// Creates the data folder with a command, and starts a cluster on it. `make` returns the command for the
    /// path of the data folder.
    pub(super) fn create_with(make: impl FnOnce(&Path, &Daemon) -> Command) -> Self {
        Self::create_in(None, make)
    }

    fn create_in(language: Option<&'static str>, make: impl FnOnce(&Path, &Daemon) -> Command) -> Self {
        let cluster = Self { server: Daemon::prepare("pg"), databases: AtomicU32::new(0), language };
        let output = make(&cluster.data(), &cluster.server).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster.start();
        cluster
    }

    /// Returns the loopback port of the cluster.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns the folder of the Unix socket of the cluster.
    pub fn socket_folder(&self) -> &Path {
        self.server.folder()
    }

    /// Creates a database that belongs to a new role `name`, which is no superuser. Returns the database and
    /// its URL for the role.
    pub fn create_database_of(&self, name: &str) -> (PostgresDatabase, String) {
        let database = self.create_database();
        self.psql("postgres", &format!("CREATE ROLE {name} LOGIN"));
        self.psql("postgres", &format!("ALTER DATABASE {} OWNER TO {name}", database.name()));
        let url = database.url_at(self.port(), name);
        (database, url)
    }

    /// Changes a setting of the running server, and waits until it is in force.
    pub fn set(&self, setting: &str, value: &str) {
        self.psql("postgres", &format!("ALTER SYSTEM SET {setting} = '{value}'"));
        self.psql("postgres", "SELECT pg_reload_conf()");
        until_blocking(&format!("{setting} is {value}"), START_LIMIT, || {
            (self.psql("postgres", &format!("SHOW {setting}")) == value).then_some(())
        });
    }

    /// Creates a database for one test.
    pub fn create_database(&self) -> PostgresDatabase {
        let name = format!("kairos_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        PostgresDatabase { url: url(self.port(), "postgres", &name), name }
    }

    /// Creates a database with this encoding. The texts of `SQL_ASCII` may hold any bytes.
    pub fn create_database_in(&self, encoding: &str) -> PostgresDatabase {
        let name = format!("kairos_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let options = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
        self.psql("postgres", &format!("CREATE DATABASE {name} {options} ENCODING '{encoding}'"));
        PostgresDatabase { url: url(self.port(), "postgres", &name), name }
    }

    /// Runs `sql` in `database` as the superuser, and returns the rows as `psql -At` prints them. Panics if a
    /// statement fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql failed on {sql:?}: {error}"))
    }

    /// Like [`Postgres::psql`], but returns the error message if a statement fails.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = psql(&format!("postgres://postgres@127.0.0.1:{}/{database}", self.port()), sql);
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Stops the server as a crash would: connections are closed and nothing is flushed. Keeps the data.
    pub fn stop_immediate(&self) {
        self.server.stop_immediate();
    }

    /// Restarts the server as a standby, as after a failover to another server. It answers reads only.
    pub fn become_standby(&self) {
        let signal = self.data().join("standby.signal");
        fs::write(&signal, "").unwrap();
        self.server.chown_to_account(&signal);
        self.stop_immediate();
        self.start();
    }

    /// Freezes the server: connections stay open and get no answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Continues the server after [`Postgres::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends a signal to the server process and to the processes that serve its connections. The server
    /// process comes first, since it starts the others.
    fn signal(&self, signal: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server = file.lines().next().expect("the first line is the process id");
        assert!(
            Command::new("sh").args(["-c", &format!("kill {signal} {server}")]).status().unwrap().success()
        );
        assert!(Command::new("pkill").args([signal, "-P", server]).status().unwrap().success());
    }

    /// Restarts the server so that it accepts TCP connections only with TLS, with this certificate.
    pub fn require_tls(&self, own: &Certificate) {
        for (source, name) in [(own.certificate(), "server.crt"), (own.key(), "server.key")] {
            let target = self.data().join(name);
            fs::copy(source, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            self.server.chown_to_account(&target);
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        fs::write(self.data().join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        self.stop_immediate();
        self.start();
    }

    /// Starts the server on its port, and waits until it answers.
    pub fn start(&self) {
        let port = self.port().to_string();
        let mut command = self.server.command("env");
        if let Some(language) = self.language {
            // With this variable, a server needs no locale of the language, only the catalog of messages.
            command.arg(format!("LANGUAGE={language}"));
        }
        command.arg(program("postgres"));
        if self.language.is_some() {
            command.args(["-c", "lc_messages=C.UTF-8"]);
        }
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

/// Returns the command that creates the data folder of a new cluster.
fn initdb(data: &Path, server: &Daemon) -> Command {
    let mut command = server.command(program("initdb"));
    command.arg("-D").arg(data);
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    command
}

/// Runs `sql` with `psql` in the database at `url`, and returns the output of `psql`.
pub(super) fn psql(url: &str, sql: &str) -> Output {
    Command::new(program("psql"))
        .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .output()
        .unwrap()
}

/// Returns the path of a PostgreSQL program: of the newest version installed by Debian packages, or else from
/// `PATH`.
pub(super) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(find_programs).join(name)
}

/// Returns the folder that holds `initdb`, `postgres`, `psql` and `pg_basebackup`.
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
