//! The service under test: the real binary on a free loopback port, with all its files in a temporary folder.
//!
//! Most tests need only `TestServer::start(engine)`; [`TestServer::builder`] changes settings. The process is
//! killed when the value is dropped. Password hashes have the lowest cost, 4, unless a test sets another one.

mod process;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kairos_identity::{entropy::Entropy, proto::identity_service_client::IdentityServiceClient};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub use self::process::resident_mib;

use super::{
    engine::{Engine, TestDatabase},
    wait::until,
};

const BINARY: &str = env!("CARGO_BIN_EXE_kairos-identity");

/// The highest bcrypt cost, for `KAIROS_IDENTITY_PASSWORD_COST`: a hash takes about two seconds, so that a
/// call is still in progress when a test acts on it.
pub const SLOW_HASH_COST: &str = "15";

/// Time limit for a log message that a test waits for, retries included.
const LOG_LIMIT: Duration = Duration::from_secs(15);

/// Settings of a service that is not started yet.
pub struct Builder {
    /// Lives as long as the server, since dropping it removes a SQLite file.
    _database: Option<TestDatabase>,
    database_url: String,
    migration_url: Option<String>,
    mail_url: Option<String>,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl Builder {
    /// Sets the environment variable `key`, for example `KAIROS_IDENTITY_SERVER_DRAIN_DEADLINE`.
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.variables.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds arguments to the command `serve`.
    pub fn with_args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Runs `migrate` with `url`, another way to the same database.
    pub fn with_migrations_through(mut self, url: &str) -> Self {
        self.migration_url = Some(url.to_owned());
        self
    }

    /// Sends mail to `url` instead of writing it into [`TestServer::mail_folder`].
    pub fn with_mail_url(mut self, url: &str) -> Self {
        self.mail_url = Some(url.to_owned());
        self
    }

    /// Runs `migrate` on PostgreSQL (on SQLite `serve` migrates by itself), starts the service, and waits
    /// until it serves.
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

/// A service that runs, or that a test has stopped.
pub struct TestServer {
    folder: TempDir,
    settings: Builder,
    process: Option<Child>,
    address: Option<SocketAddr>,
}

impl TestServer {
    /// Starts a service on a new database of `engine`.
    pub async fn start(engine: Engine) -> Self {
        Self::builder(engine).start().await
    }

    /// Returns the settings of a service on a new database of `engine`.
    pub fn builder(engine: Engine) -> Builder {
        let database = TestDatabase::new(engine);
        let url = database.url().to_owned();
        Builder { _database: Some(database), ..Self::on_url(url) }
    }

    /// Returns the settings of a service on a database that the test owns.
    pub fn on_url(database_url: String) -> Builder {
        let variables = [("COST", "4"), ("INSECURE_LOW_COST", "true")];
        let variables =
            variables.map(|(name, value)| (format!("KAIROS_IDENTITY_PASSWORD_{name}"), value.to_owned()));
        let variables = BTreeMap::from(variables);
        Builder {
            _database: None,
            database_url,
            migration_url: None,
            mail_url: None,
            variables,
            arguments: Vec::new(),
        }
    }

    /// Starts a second instance, as an operator would: on the same database, with the same secret key and the
    /// same mail destination. The database and the mail folder belong to the first instance and are removed
    /// with it.
    pub async fn second_instance(&self) -> Self {
        self.second_instance_with(&[]).await
    }

    /// Like [`TestServer::second_instance`], with these environment variables added or replaced.
    pub async fn second_instance_with(&self, variables: &[(&str, &str)]) -> Self {
        self.start_second_instance(self.database_url(), variables).await
    }

    /// Like [`TestServer::second_instance`], on another database that holds a copy of the data.
    pub async fn second_instance_on(&self, database_url: &str) -> Self {
        self.start_second_instance(database_url, &[]).await
    }

    async fn start_second_instance(&self, database_url: &str, variables: &[(&str, &str)]) -> Self {
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
        let mut second_instance = Self { folder, settings, process: None, address: None };
        second_instance.launch().await;
        second_instance
    }

    /// Returns the gRPC address; panics if the service has not started.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the service has started")
    }

    /// Returns the address of the HTTP port, which serves the pages and the public keys.
    pub fn http_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.rsplit_once("Serving HTTP on ").expect("the HTTP address is in the log");
        rest.split(": ").next().and_then(|address| address.parse().ok()).unwrap()
    }

    /// Returns the address of the metrics, which the log names.
    pub fn metrics_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.rsplit_once("Serving metrics on http://").expect("the address is in the log");
        rest.split_once("/metrics").unwrap().0.parse().unwrap()
    }

    /// Returns the value of `--database-url`.
    pub fn database_url(&self) -> &str {
        &self.settings.database_url
    }

    /// Opens a new gRPC connection.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address())).unwrap().connect().await.unwrap()
    }

    /// Returns the generated client of `IdentityService` on a new connection.
    pub async fn client(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel().await)
    }

    /// Returns the folder with the mails, as `.eml` files.
    pub fn mail_folder(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// Returns the key that encrypts secrets in the database, in base64.
    pub fn secret_key(&self) -> String {
        fs::read_to_string(self.secret_key_file()).unwrap()
    }

    /// Returns the path of the file with the secret key.
    pub fn secret_key_file(&self) -> PathBuf {
        self.folder.path().join("secret.key")
    }

    /// Returns the whole log, across restarts: one JSON object per line.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the log contains `text`, and returns the whole log. The wait is needed because a separate
    /// thread of the service writes the log.
    pub async fn logged(&self, text: &str) -> String {
        let log = async || Some(self.log()).filter(|log| log.contains(text));
        until(&format!("the log contains {text}"), LOG_LIMIT, log).await
    }

    /// Returns a command of the binary (`migrate`, `user list`, ...) with the settings of this service.
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
        command.env("KAIROS_IDENTITY_TELEMETRY_LISTEN", "127.0.0.1:0");
        // Other tests run at the same time, so a server may need more than the default to answer.
        command.env("KAIROS_IDENTITY_DATABASE_CONNECT_TIMEOUT", "3s");
        command.current_dir(self.folder.path()).envs(&self.settings.variables).stdin(Stdio::null());
        command
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

/// Writes the secret key that encrypts mailed tokens: 32 random bytes in base64, readable only by the owner.
fn write_secret_key(path: &Path) {
    let key = STANDARD.encode(Entropy::system().bytes::<32>());
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, key.as_bytes()).unwrap();
}
