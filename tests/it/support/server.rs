//! The service itself: the real binary, on a free port of loopback, with everything it writes in a temporary folder.
//!
//! `TestServer::start(engine)` is what most tests need; [`TestServer::builder`] changes settings. It is killed when
//! dropped. Hashes cost next to nothing unless a test says otherwise.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::{entropy::Entropy, proto::identity_service_client::IdentityServiceClient};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::{
    engine::{Engine, TestDatabase},
    wait::until,
};

const BINARY: &str = env!("CARGO_BIN_EXE_kairos-identity");

/// What the service logs once it serves; the address follows.
const SERVING: &str = "Serving gRPC on ";

/// From the start of the process to [`SERVING`], on a machine that does other work too.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What a test waits for happens within this, retries and all.
const LOG_LIMIT: Duration = Duration::from_secs(15);

/// Longer than any drain deadline that a test sets.
const EXIT_LIMIT: Duration = Duration::from_secs(45);

/// What a server of a test is started with.
pub struct Builder {
    /// Kept as long as the server: dropping it removes a SQLite file.
    _database: Option<TestDatabase>,
    database_url: String,
    migration_url: Option<String>,
    mail_url: Option<String>,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl Builder {
    /// Sets the variable `key`, for example `KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE`.
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.variables.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds arguments to `serve`.
    pub fn with_args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Migrates through `url`, which leads to the same database.
    pub fn with_migrations_through(mut self, url: &str) -> Self {
        self.migration_url = Some(url.to_owned());
        self
    }

    /// Sends mail to `url` instead of into [`TestServer::mail_folder`].
    pub fn with_mail_url(mut self, url: &str) -> Self {
        self.mail_url = Some(url.to_owned());
        self
    }

    /// Migrates where `serve` does not do it by itself, starts the service and waits until it serves.
    pub async fn start(self) -> TestServer {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("mail")).unwrap();
        write_secret_key(&folder.path().join("secret.key"));
        let mut server = TestServer { folder, settings: self, process: None, address: None };
        if server.settings.database_url.starts_with("postgres") {
            server.migrate();
        }
        server.launch().await;
        server
    }
}

/// A running service, or one that a test has stopped.
pub struct TestServer {
    folder: TempDir,
    settings: Builder,
    process: Option<Child>,
    address: Option<SocketAddr>,
}

impl TestServer {
    /// A service on a fresh database of `engine`.
    pub async fn start(engine: Engine) -> Self {
        Self::builder(engine).start().await
    }

    /// The same, not yet started.
    pub fn builder(engine: Engine) -> Builder {
        let database = TestDatabase::new(engine);
        let url = database.url().to_owned();
        Builder { _database: Some(database), ..Self::on_url(url) }
    }

    /// A service on a database that the test keeps; not yet started.
    pub fn on_url(database_url: String) -> Builder {
        let variables = BTreeMap::from([("KAIROS_IDENTITY_PASSWORD_COST".to_owned(), "4".to_owned())]);
        Builder {
            _database: None,
            database_url,
            migration_url: None,
            mail_url: None,
            variables,
            arguments: Vec::new(),
        }
    }

    /// A second instance, as an operator would run it: on the same database, with the same key, mailing to the same
    /// place. The database and the mails are the first one's, and go with it.
    pub async fn twin(&self) -> Self {
        self.twin_with(&[]).await
    }

    /// The same with other variables.
    pub async fn twin_with(&self, variables: &[(&str, &str)]) -> Self {
        self.twin_of(self.database_url(), variables).await
    }

    /// The same on another database, which a copy has filled.
    pub async fn twin_on(&self, database_url: &str) -> Self {
        self.twin_of(database_url, &[]).await
    }

    async fn twin_of(&self, database_url: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(self.folder.path().join("secret.key"), folder.path().join("secret.key")).unwrap();
        let changed = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let settings = Builder {
            _database: None,
            database_url: database_url.to_owned(),
            migration_url: None,
            mail_url: Some(self.mail_url()),
            variables: self.settings.variables.clone().into_iter().chain(changed).collect(),
            arguments: self.settings.arguments.clone(),
        };
        let mut twin = Self { folder, settings, process: None, address: None };
        twin.launch().await;
        twin
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the service has started")
    }

    /// The value of `--database-url`.
    pub fn database_url(&self) -> &str {
        &self.settings.database_url
    }

    /// A new connection.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address())).unwrap().connect().await.unwrap()
    }

    /// The generated client on a new connection.
    pub async fn client(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel().await)
    }

    /// Where the mails are, as `.eml` files.
    pub fn mail_folder(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// The key that secrets lie under in the database.
    pub fn secret_key(&self) -> String {
        fs::read_to_string(self.secret_key_file()).unwrap()
    }

    /// Where it is.
    pub fn secret_key_file(&self) -> PathBuf {
        self.folder.path().join("secret.key")
    }

    /// All that it has logged, over restarts too: a JSON object a line.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the log says `words`, which a thread of the service's writes a little later; gives all of it.
    pub async fn logged(&self, words: &str) -> String {
        let says = async || Some(self.log()).filter(|log| log.contains(words));
        until(&format!("the log says {words}"), LOG_LIMIT, says).await
    }

    /// Runs another command of the binary (`migrate`, `user list`, …) with the same settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_on(self.database_url(), arguments)
    }

    fn command_on(&self, database_url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("KAIROS_IDENTITY_")) {
                command.env_remove(key);
            }
        }
        command.args(arguments).args(["--database-url", database_url]).args(["--log-format", "json"]);
        command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", self.secret_key_file());
        command.env("KAIROS_IDENTITY_HTTP_LISTEN", "127.0.0.1:0");
        command.current_dir(self.folder.path()).envs(&self.settings.variables).stdin(Stdio::null());
        command
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// How much memory it has, in MiB (Linux).
    pub fn resident_mib(&self) -> u64 {
        let id = self.process.as_ref().expect("the service runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Lets it open so many files more than it has open now, or as many as ever when nothing is said (Linux).
    pub fn limit_open_files(&self, more: Option<usize>) {
        let id = self.process.as_ref().expect("the service runs").id();
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let soft = more.map_or("4096".to_owned(), |more| (open + more).to_string());
        let status = Command::new("prlimit")
            .arg(format!("--pid={id}"))
            .arg(format!("--nofile={soft}:"))
            .status()
            .unwrap();
        assert!(status.success(), "the limit is set");
    }

    /// Kills it with SIGKILL: no destructor runs, nothing is flushed.
    pub fn kill_9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks it to stop, with SIGTERM; [`TestServer::wait`] waits for the end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("the service runs").id();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(status.success(), "the signal was delivered");
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the service was started");
        let status = until("the service exits", EXIT_LIMIT, async || process.try_wait().unwrap()).await;
        self.process = None;
        status
    }

    /// Starts it anew on the same database, after a kill if it still runs. The port is another one.
    pub async fn restart(&mut self) {
        self.kill_9();
        self.launch().await;
    }

    async fn launch(&mut self) {
        let seen = self.log().len();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        self.process =
            Some(self.serve_command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let limit = START_LIMIT;
        let address =
            until("the service logs that it serves", limit, async || self.look_for_address(seen)).await;
        self.address = Some(address);
    }

    /// Where its pages and public keys are.
    pub fn http_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.rsplit_once("Serving HTTP on ").expect("it has told so before it served");
        rest.split(": ").next().and_then(|address| address.parse().ok()).unwrap()
    }

    /// The address in the log from byte `seen` on; panics when the process has ended instead.
    fn look_for_address(&mut self, seen: usize) -> Option<SocketAddr> {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
        let log = self.log();
        let address = log.get(seen..)?.split_once(SERVING).map(|(_, rest)| {
            rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).next().unwrap_or_default()
        });
        assert!(address.is_some() || ended.is_none(), "the service ended with {ended:?}:\n{log}");
        address?.trim_end_matches(['.', ':']).parse().ok()
    }

    fn serve_command(&self) -> Command {
        let folder = self.folder.path();
        let mut command = self.command(&["serve"]);
        command.args(["--listen", "127.0.0.1:0", "--insecure-low-cost", "--mail-url", &self.mail_url()]);
        command.arg("--secret-key-file").arg(folder.join("secret.key")).args(&self.settings.arguments);
        command
    }

    fn mail_url(&self) -> String {
        self.settings.mail_url.clone().unwrap_or(format!("file://{}", self.mail_folder().display()))
    }

    fn migrate(&self) {
        let url = self.settings.migration_url.as_deref().unwrap_or(self.database_url());
        let output = self.command_on(url, &["migrate"]).output().unwrap();
        assert!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log.jsonl")
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

/// The key that seals mailed tokens: 32 random bytes in base64, readable by the owner only.
fn write_secret_key(path: &Path) {
    let key = STANDARD.encode(Entropy::system().bytes::<32>());
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, key.as_bytes()).unwrap();
}
