//! The command line flags of the settings that are changed most often.

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{env, path::PathBuf};

use clap::Args;

use super::{
    ConfigError, Settings,
    sources::{FILE_VARIABLE, Flag, Sources},
};

/// Flags of every command: the settings file, the database and the log.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreFlags {
    /// The settings file (TOML); docs/CONFIG.md lists every setting with its KAIROS_IDENTITY_* variable
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// The database: sqlite:///folder/file, sqlite://relative/file or postgres://user:password@host/database
    /// [default: sqlite://data/kairos-identity.sqlite3]
    #[arg(long, value_name = "URL", global = true, help_heading = "Settings")]
    pub database_url: Option<String>,
    /// The log level: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", global = true, help_heading = "Settings")]
    pub log_level: Option<String>,
    /// The log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT", global = true, help_heading = "Settings")]
    pub log_format: Option<String>,
}

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each unsafe option has its own flag")]
pub struct ServeFlags {
    /// The gRPC address; other than loopback it needs TLS or --insecure-plaintext [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// The HTTP address of the pages behind mailed links and of the public keys; empty disables it
    /// [default: 127.0.0.1:50080]
    #[arg(long, value_name = "ADDR")]
    pub http_listen: Option<String>,
    /// Where mail is delivered: smtp://user:password@host:port (STARTTLS), smtps://user:password@host:port
    /// (TLS) or file:///folder [default: file://data/mail]
    #[arg(long, value_name = "URL")]
    pub mail_url: Option<String>,
    /// The URL that mailed links begin with, as in URL/verify?token=TOKEN [default: http://localhost:50080]
    #[arg(long, value_name = "URL")]
    pub public_base_url: Option<String>,
    /// The certificate chain, a PEM file; enables TLS together with --tls-key
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// The CA certificates that verify the certificates of callers, a PEM file
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// The callers file (TOML; docs/CALLERS.md): which services may call which methods; required unless
    /// --listen is loopback
    #[arg(long, value_name = "FILE")]
    pub callers: Option<String>,
    /// A file with 32 random bytes in base64, the key that encrypts the secrets in the database; required
    /// with PostgreSQL
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<String>,
    /// Allow addresses that are not loopback without TLS: passwords then cross the network unencrypted
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Allow an address that is not loopback without --callers: every client that reaches it can read, change
    /// and take over every user
    #[arg(long)]
    pub insecure_no_callers: bool,
    /// Allow SMTP without encryption to a host that is not loopback: an attacker who reads a mail in transit
    /// can use its link
    #[arg(long)]
    pub insecure_mail_plaintext: bool,
    /// Allow a password hash cost below 10, for tests
    #[arg(long)]
    pub insecure_low_cost: bool,
}

impl Settings {
    /// Loads the settings of this process from its flags, its environment variables and the settings file
    /// that they name.
    ///
    /// # Errors
    /// [`ConfigError`] for the first error.
    pub fn load(store: &StoreFlags, serve: &ServeFlags) -> Result<(Self, Sources), ConfigError> {
        let file = store.config.clone().or_else(|| env::var_os(FILE_VARIABLE).map(PathBuf::from));
        let flags = store.given().chain(serve.given()).collect();
        let sources = Sources::gather(file.as_deref(), env::vars_os(), flags)?;
        Ok((Self::read(&sources)?, sources))
    }
}

impl StoreFlags {
    fn given(&self) -> impl Iterator<Item = Flag> {
        let flags = [
            ("database.url", "database-url", self.database_url.clone()),
            ("log.level", "log-level", self.log_level.clone()),
            ("log.format", "log-format", self.log_format.clone()),
        ];
        flags.into_iter().filter_map(|(key, flag, text)| Some((key, flag, text?)))
    }
}

impl ServeFlags {
    fn given(&self) -> impl Iterator<Item = Flag> {
        let set = |is_set: bool| is_set.then(|| "true".to_owned());
        let flags = [
            ("server.listen", "listen", self.listen.clone()),
            ("http.listen", "http-listen", self.http_listen.clone()),
            ("mail.url", "mail-url", self.mail_url.clone()),
            ("mail.public-base-url", "public-base-url", self.public_base_url.clone()),
            ("server.tls-cert", "tls-cert", self.tls_cert.clone()),
            ("server.tls-key", "tls-key", self.tls_key.clone()),
            ("server.tls-client-ca", "tls-client-ca", self.tls_client_ca.clone()),
            ("callers.file", "callers", self.callers.clone()),
            ("callers.insecure-none", "insecure-no-callers", set(self.insecure_no_callers)),
            ("secret.key-file", "secret-key-file", self.secret_key_file.clone()),
            ("server.insecure-plaintext", "insecure-plaintext", set(self.insecure_plaintext)),
            ("mail.insecure-plaintext", "insecure-mail-plaintext", set(self.insecure_mail_plaintext)),
            ("password.insecure-low-cost", "insecure-low-cost", set(self.insecure_low_cost)),
        ];
        flags.into_iter().filter_map(|(key, flag, text)| Some((key, flag, text?)))
    }
}
