//! PgBouncer in front of a cluster, with the settings of `docs/pgbouncer.md` and a smaller pool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    daemon::Daemon,
    postgres::{Postgres, PostgresDatabase, psql},
    tools::repository,
    wait::until_blocking,
};

/// First version that supports prepared statements in transaction mode.
const VERSION_MIN: (u32, u32) = (1, 21);

/// Name of the admin console, a virtual database of PgBouncer that accepts commands.
const CONSOLE: &str = "pgbouncer";

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running PgBouncer. One role may connect without a password to every database of a cluster.
pub struct PgBouncer {
    server: Daemon,
    role: String,
}

impl PgBouncer {
    /// Starts PgBouncer with the documented settings and at most `pool_size` connections to each database of
    /// `cluster`.
    pub fn start(cluster: &Postgres, role: &str, pool_size: usize) -> Self {
        let server = Daemon::prepare("pgbouncer");
        // The account that runs PgBouncer may have no access to the repository.
        let program = server.folder().join("pgbouncer");
        fs::copy(find_program(), &program).unwrap();
        let users = server.folder().join("users.txt");
        fs::write(&users, format!("\"{role}\" \"\"\n")).unwrap();
        let settings = server.folder().join("pgbouncer.ini");
        // The last value of a setting wins.
        fs::write(
            &settings,
            format!(
                "{documented}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n\
                 auth_file = {users}\nadmin_users = {role}\ndefault_pool_size = {pool_size}\n\
                 [databases]\n* = host=127.0.0.1 port={cluster_port}\n",
                documented = documented("ini"),
                port = server.port(),
                users = users.display(),
                cluster_port = cluster.port(),
            ),
        )
        .unwrap();
        server.start(server.command(program).arg(settings));
        let bouncer = Self { server, role: role.to_owned() };
        until_blocking(
            &format!("PgBouncer answers; its log is {}", bouncer.server.log().display()),
            START_LIMIT,
            || bouncer.try_psql(CONSOLE, "SHOW VERSION"),
        );
        bouncer
    }

    /// Returns the URL through PgBouncer of a database of the cluster.
    pub fn url(&self, database: &PostgresDatabase) -> String {
        database.url_at(self.server.port(), &self.role)
    }

    /// Runs `sql` through PgBouncer in a database of the cluster, as the role; returns the rows.
    pub fn psql(&self, database: &PostgresDatabase, sql: &str) -> String {
        self.try_psql(database.name(), sql).expect("the statement succeeds")
    }

    /// Returns how many connections the clients of PgBouncer have to `database`.
    pub fn clients(&self, database: &PostgresDatabase) -> usize {
        let clients = self.try_psql(CONSOLE, "SHOW CLIENTS").expect("PgBouncer answers");
        clients.lines().filter(|client| client.split('|').any(|field| field == database.name())).count()
    }

    fn try_psql(&self, database: &str, sql: &str) -> Option<String> {
        let url = format!("postgres://{}@127.0.0.1:{}/{database}", self.role, self.server.port());
        let output = psql(&url, sql);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    }
}

/// Returns the first code block of `language` in `docs/pgbouncer.md`.
pub fn documented(language: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/pgbouncer.md")).unwrap();
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .expect("docs/pgbouncer.md has a code block of this language");
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// Returns the path of the program that `scripts/setup test` built, or else of the system's program.
fn find_program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    [repository().join(".tools/bin"), "/usr/sbin".into()]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| version(program).is_some_and(|version| version >= VERSION_MIN))
        .expect("PgBouncer 1.21 or later is missing: run `scripts/setup test`")
}

/// Returns the version of the program: (1, 24) for the output `PgBouncer 1.24.1`.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.strip_prefix("PgBouncer ")?.split(['.', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
