//! Settings: loaded once, checked before anything starts; nothing else reads the environment.
//!
//! Each setting is declared in the file of its section, with its type, its one default and its meaning. Flags win over
//! `KAIROS_IDENTITY_…` variables, these over the TOML file, and that over the defaults; a key that is not known or a value
//! that is not what was expected stops the start. Start at [`Settings::of_process`].

mod audit;
mod callers;
mod client;
mod database;
mod database_url;
mod flags;
mod http;
mod log;
mod login;
mod lookup;
mod mail;
mod mail_url;
mod password;
#[cfg(test)]
mod reference;
mod rules;
mod secret;
mod server;
mod session;
mod setting;
mod sources;
mod url_text;
mod value;
mod verification;

use std::{fmt::Write, io, path::PathBuf};

pub use self::{
    audit::{AuditSettings, RETENTION_MILLIS_MAX},
    callers::CallersSettings,
    client::ClientSettings,
    database::DatabaseSettings,
    database_url::DatabaseUrl,
    flags::{ServeFlags, StoreFlags},
    http::{HttpSettings, PagesSettings},
    log::LogSettings,
    login::LoginSettings,
    lookup::LookupSettings,
    mail::MailSettings,
    mail_url::{MailUrl, SmtpTls},
    password::PasswordSettings,
    secret::SecretSettings,
    server::ServerSettings,
    session::SessionSettings,
    setting::{Section, Setting},
    sources::{Origin, Sources},
    value::{Bytes, Count, LogFormat, LogLevel, PublicUrl, Sender, Span, Text, Value},
    verification::VerificationSettings,
};

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[pages]`
    pub pages: PagesSettings,
    /// `[callers]`
    pub callers: CallersSettings,
    /// `[client]`
    pub client: ClientSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[lookup]`
    pub lookup: LookupSettings,
    /// `[password]`
    pub password: PasswordSettings,
    /// `[login]`
    pub login: LoginSettings,
    /// `[session]`
    pub session: SessionSettings,
    /// `[mail]`
    pub mail: MailSettings,
    /// `[verification]`
    pub verification: VerificationSettings,
    /// `[secret]`
    pub secret: SecretSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[audit]`
    pub audit: AuditSettings,
}

/// Why there are no settings. Shows no password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: line {line}: {rule}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong there.
        rule: String,
    },
    /// A key or a variable that nobody reads: most likely misspelt.
    #[error("{key} is not a setting ({origin}){}; all are listed in docs/CONFIG.md", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// What was given.
        key: String,
        /// By whom.
        origin: Origin,
        /// What is spelt like it.
        nearest: Option<String>,
    },
    /// A list, a table or a text that is not UTF-8, where one value was expected.
    #[error("{key} must be a text, a whole number, true or false ({origin})")]
    WrongType {
        /// The key.
        key: String,
        /// Who set it.
        origin: Origin,
    },
    /// A value that is not what was expected.
    #[error("{key}: expected {expected}, not \"{shown}\" ({origin})")]
    BadValue {
        /// The key.
        key: String,
        /// The text without secrets.
        shown: String,
        /// Who set it.
        origin: Origin,
        /// What was expected.
        expected: String,
    },
    /// A secret that is given as such and in a file.
    #[error("{key} and {other} are both set: give one of them")]
    Both {
        /// The setting.
        key: String,
        /// The other.
        other: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Rule(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}

/// Each section: what it is for, and its settings.
fn sections() -> [(&'static [&'static str], &'static [Setting]); 15] {
    [
        (ServerSettings::ABOUT, ServerSettings::SETTINGS),
        (HttpSettings::ABOUT, HttpSettings::SETTINGS),
        (PagesSettings::ABOUT, PagesSettings::SETTINGS),
        (CallersSettings::ABOUT, CallersSettings::SETTINGS),
        (ClientSettings::ABOUT, ClientSettings::SETTINGS),
        (DatabaseSettings::ABOUT, DatabaseSettings::SETTINGS),
        (LookupSettings::ABOUT, LookupSettings::SETTINGS),
        (PasswordSettings::ABOUT, PasswordSettings::SETTINGS),
        (LoginSettings::ABOUT, LoginSettings::SETTINGS),
        (SessionSettings::ABOUT, SessionSettings::SETTINGS),
        (MailSettings::ABOUT, MailSettings::SETTINGS),
        (VerificationSettings::ABOUT, VerificationSettings::SETTINGS),
        (SecretSettings::ABOUT, SecretSettings::SETTINGS),
        (LogSettings::ABOUT, LogSettings::SETTINGS),
        (AuditSettings::ABOUT, AuditSettings::SETTINGS),
    ]
}

/// Every setting.
fn settings() -> impl Iterator<Item = &'static Setting> {
    sections().into_iter().flat_map(|(_, settings)| settings)
}

impl Settings {
    /// Parses every setting.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] for the first that is not what was expected.
    pub fn read(sources: &Sources) -> Result<Self, ConfigError> {
        Ok(Self {
            server: ServerSettings::read(sources)?,
            http: HttpSettings::read(sources)?,
            pages: PagesSettings::read(sources)?,
            callers: CallersSettings::read(sources)?,
            client: ClientSettings::read(sources)?,
            database: DatabaseSettings::read(sources)?,
            lookup: LookupSettings::read(sources)?,
            password: PasswordSettings::read(sources)?,
            login: LoginSettings::read(sources)?,
            session: SessionSettings::read(sources)?,
            mail: MailSettings::read(sources)?,
            verification: VerificationSettings::read(sources)?,
            secret: SecretSettings::read(sources)?,
            log: LogSettings::read(sources)?,
            audit: AuditSettings::read(sources)?,
        })
    }

    /// What is in force, as a file that `--config` takes, each with who set it; passwords are not in it.
    #[must_use]
    pub fn print(sources: &Sources) -> String {
        let mut text = String::new();
        for (_, settings) in sections() {
            for (index, setting) in settings.iter().enumerate() {
                if index == 0 {
                    let _ =
                        writeln!(text, "{}[{}]", if text.is_empty() { "" } else { "\n" }, setting.section);
                }
                let (value, origin) = sources.shown(setting);
                let value = toml::Value::String(value);
                let _ = writeln!(text, "{} = {value}  # {origin}", setting.field.replace('_', "-"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
