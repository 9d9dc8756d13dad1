//! PgBouncer in front of a cluster: as `docs/pgbouncer.md` tells operators to run it, with fewer connections.

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

/// The first that prepares statements in transaction mode.
const VERSION_MIN: (u32, u32) = (1, 21);

/// The database that is PgBouncer's own, which takes commands.
const CONSOLE: &str = "pgbouncer";

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running PgBouncer that lets one role in without a password, to every database of a cluster.
pub struct PgBouncer {
    server: Daemon,
    role: String,
}

impl PgBouncer {
    /// With the documented settings, and at most `pool_size` connections to each database of `cluster`.
    pub fn start(cluster: &Postgres, role: &str, pool_size: usize) -> Self {
        let server = Daemon::prepare("pgbouncer");
        // The account that runs it may not be allowed to look into the repository.
        let program = server.folder().join("pgbouncer");
        fs::copy(find_program(), &program).unwrap();
        let users = server.folder().join("users.txt");
        fs::write(&users, format!("\"{role}\" \"\"\n")).unwrap();
        let settings = server.folder().join("pgbouncer.ini");
        // The last word on a setting counts.
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

    /// Where a database of the cluster's is here.
    pub fn url(&self, database: &PostgresDatabase) -> String {
        database.url_at(self.server.port(), &self.role)
    }

    /// Runs `sql` in a database of the cluster's, as the role.
    pub fn psql(&self, database: &PostgresDatabase, sql: &str) -> String {
        self.try_psql(database.name(), sql).expect("the statement is right")
    }

    /// How many connections its clients have to `database`.
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

/// The block of code of `language` in the page for operators.
pub fn documented(language: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/pgbouncer.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("the page has such a block");
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// The one that `scripts/setup test` built, or the system's.
fn find_program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    [repository().join(".tools/bin"), "/usr/sbin".into()]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| version(program).is_some_and(|version| version >= VERSION_MIN))
        .expect("PgBouncer 1.21 or later is missing: run `scripts/setup test`")
}

/// `PgBouncer 1.24.1` is (1, 24).
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.strip_prefix("PgBouncer ")?.split(['.', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
