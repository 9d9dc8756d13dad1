//! Settings: loaded and validated once, before the service starts. No other module reads the environment.
//!
//! Each setting is declared once, in the file of its section: its type, its only default, its description,
//! its flag, and whether it is a secret. Flags override `KAIROS_IDENTITY_*` variables, variables override the
//! TOML file, and the file overrides the defaults. An unknown key or an invalid value makes the start fail.
//! Entry point: [`Settings::load`].

mod audit;
mod callers;
mod client;
mod contact;
mod database;
mod database_url;
mod error;
mod flags;
mod hello_name;
mod http;
mod kubernetes;
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
mod section_list;
mod sender;
mod server;
mod session;
mod setting;
mod setting_source;
mod settings;
mod similar_name;
mod sources;
mod telemetry;
mod url_text;
mod value;
mod verification;

pub use self::{
    audit::{AuditSettings, RETENTION_MILLIS_MAX},
    callers::CallersSettings,
    client::ClientSettings,
    contact::SecurityContact,
    database::DatabaseSettings,
    database_url::DatabaseUrl,
    error::ConfigError,
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
    rules::{LowCost, same_port},
    secret::SecretSettings,
    section::Section,
    sender::Sender,
    server::ServerSettings,
    session::SessionSettings,
    setting::{Flag, Setting},
    setting_source::SettingSource,
    settings::Settings,
    sources::Sources,
    value::{Text, Value},
    verification::VerificationSettings,
};

#[cfg(test)]
mod tests;
