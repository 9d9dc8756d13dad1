//! The flags, which stand for the settings that are changed most.

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{env, path::PathBuf};

use clap::Args;

use super::{
    ConfigError, Settings,
    sources::{FILE_VARIABLE, Flag, Sources},
};

/// Flags of every command: where the data is, and what is logged.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreFlags {
    /// The file with settings (TOML); every setting is in docs/CONFIG.md, with its KAIROS_IDENTITY_… variable
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Where the data is: sqlite:///folder/file, sqlite://relative/file or postgres://user:password@host/database
    /// [default: sqlite://data/kairos-identity.sqlite3]
    #[arg(long, value_name = "URL", global = true, help_heading = "Settings")]
    pub database_url: Option<String>,
    /// What is logged: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", global = true, help_heading = "Settings")]
    pub log_level: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT", global = true, help_heading = "Settings")]
    pub log_format: Option<String>,
}

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each danger is allowed by a flag of its own")]
pub struct ServeFlags {
    /// Where to listen; anything but loopback needs TLS or --insecure-plaintext [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where the pages behind mailed links and the public keys are served; empty for nowhere [default: 127.0.0.1:50080]
    #[arg(long, value_name = "ADDR")]
    pub http_listen: Option<String>,
    /// Where mails go: smtp://user:password@host:port (STARTTLS), smtps://… (TLS) or file:///folder
    /// [default: file://data/mail]
    #[arg(long, value_name = "URL")]
    pub mail_url: Option<String>,
    /// The beginning of the links in mails: people open URL/verify?token=… [default: http://localhost:50080]
    #[arg(long, value_name = "URL")]
    pub public_base_url: Option<String>,
    /// The certificate chain, a PEM file; turns TLS on
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// The authorities that vouch for callers' certificates, a PEM file
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// Which services may call, and what: a TOML file (docs/CALLERS.md); needed where the address is not loopback
    #[arg(long, value_name = "FILE")]
    pub callers: Option<String>,
    /// 32 random bytes in base64, under which mailed tokens wait for their mail; needed with PostgreSQL
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<String>,
    /// Allow an address that is not loopback without TLS: passwords cross the network in the clear
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Allow an address that is not loopback without --callers: whoever reaches it may read, change and take over every user
    #[arg(long)]
    pub insecure_no_callers: bool,
    /// Allow SMTP without encryption to a host that is not loopback: whoever sees a mail can use its link
    #[arg(long)]
    pub insecure_mail_plaintext: bool,
    /// Allow a cost of password hashes below 10: for tests
    #[arg(long)]
    pub insecure_low_cost: bool,
}

impl Settings {
    /// The settings of this process: its flags, its environment, the file they name.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is not as it should be.
    pub fn of_process(store: &StoreFlags, serve: &ServeFlags) -> Result<(Self, Sources), ConfigError> {
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
