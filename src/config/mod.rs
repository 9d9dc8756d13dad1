//! Settings: loaded and validated once, before the service starts. No other module reads the environment.
//!
//! Each setting is declared once, in the file of its section: its type, its only default, its description,
//! its flag, and whether it is a secret. Flags override `KAIROS_IDENTITY_*` variables, variables override the
//! TOML file, and the file overrides the defaults. An unknown key or an invalid value makes the start fail.
//! Entry point: [`Settings::load`].

mod audit;
mod callers;
mod client;
mod database;
mod database_url;
mod flags;
mod http;
mod log;
mod log_value;
mod login;
mod lookup;
mod mail;
mod mail_url;
mod number;
mod password;
mod public_url;
#[cfg(test)]
mod reference;
mod rules;
mod secret;
mod section;
mod sender;
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
    flags::{ServeFlags, SettingFlags, StoreFlags},
    http::{HttpSettings, PagesSettings},
    log::LogSettings,
    log_value::{LogFormat, LogLevel},
    login::LoginSettings,
    lookup::LookupSettings,
    mail::MailSettings,
    mail_url::{MailUrl, SmtpTls},
    number::{Bytes, Count, Span},
    password::PasswordSettings,
    public_url::PublicUrl,
    secret::SecretSettings,
    section::Section,
    sender::Sender,
    server::ServerSettings,
    session::SessionSettings,
    setting::{Flag, Setting},
    sources::{SettingSource, Sources},
    value::{Text, Value},
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

/// Why the settings could not be loaded. The messages contain no password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file, or a file that a setting names, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not valid TOML.
    #[error("{} is not valid TOML: line {line}: {rule}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line of the error, counted from 1.
        line: usize,
        /// The parser's message.
        rule: String,
    },
    /// A key or a variable that is not a setting, most likely because it is misspelt.
    #[error("{key} is not a setting ({set_by}){}; docs/CONFIG.md lists all settings", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The unknown key or variable.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
        /// The known name with the most similar spelling, if one is similar enough.
        nearest: Option<String>,
    },
    /// A value of a type that no setting has, such as a list or a table, or a variable that is not UTF-8.
    #[error("{key} must be a UTF-8 string, an integer or a boolean ({set_by})")]
    WrongType {
        /// The key or variable.
        key: String,
        /// Where it was set.
        set_by: SettingSource,
    },
    /// A value that the type of the setting does not allow.
    #[error("{key}: expected {expected}, not \"{redacted}\" ({set_by})")]
    BadValue {
        /// The key.
        key: String,
        /// The text of the value, without secrets.
        redacted: String,
        /// Where it was set.
        set_by: SettingSource,
        /// A description of the valid values.
        expected: String,
    },
    /// A secret that is set both directly and through a file.
    #[error("{key} and {other} are both set: set only one of them")]
    BothSet {
        /// The setting with the value.
        key: String,
        /// The setting with the file.
        other: String,
    },
    /// A combination of settings with which the service does not start.
    #[error("{0}")]
    Rule(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}

/// Returns the description and the settings of each section.
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

/// Returns every setting, in the order of the sections.
fn settings() -> impl Iterator<Item = &'static Setting> {
    sections().into_iter().flat_map(|(_, settings)| settings)
}

impl Settings {
    /// Parses every setting.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] for the first invalid value.
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

    /// Returns the settings in force as a TOML file that `--config` accepts, each with its source. Passwords
    /// are redacted.
    #[must_use]
    pub fn print(sources: &Sources) -> String {
        let mut text = String::new();
        for (_, settings) in sections() {
            for (index, setting) in settings.iter().enumerate() {
                if index == 0 {
                    let _ =
                        writeln!(text, "{}[{}]", if text.is_empty() { "" } else { "\n" }, setting.section);
                }
                let (value, source) = sources.redacted(setting);
                let value = toml::Value::String(value);
                let _ = writeln!(text, "{} = {value}  # {source}", setting.field.replace('_', "-"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
