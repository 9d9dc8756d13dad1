//! All settings, parsed from their sources.

use std::fmt::Write;

use super::{
    audit::AuditSettings,
    callers::CallersSettings,
    client::ClientSettings,
    database::DatabaseSettings,
    error::ConfigError,
    http::{HttpSettings, PagesSettings},
    log::LogSettings,
    login::LoginSettings,
    lookup::LookupSettings,
    mail::MailSettings,
    password::PasswordSettings,
    secret::SecretSettings,
    section::Section,
    section_list::sections,
    server::ServerSettings,
    session::SessionSettings,
    sources::Sources,
    telemetry::TelemetrySettings,
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
    /// `[telemetry]`
    pub telemetry: TelemetrySettings,
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
            telemetry: TelemetrySettings::read(sources)?,
        })
    }

    /// Returns the settings in force as a TOML file, each with its source. Passwords are redacted; `--config`
    /// accepts the file once they are written in it.
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
