//! The list of all sections.

use super::{
    audit::AuditSettings,
    callers::CallersSettings,
    client::ClientSettings,
    database::DatabaseSettings,
    http::{HttpSettings, PagesSettings},
    log::LogSettings,
    login::LoginSettings,
    lookup::LookupSettings,
    mail::MailSettings,
    password::PasswordSettings,
    secret::SecretSettings,
    section::Section,
    server::ServerSettings,
    session::SessionSettings,
    setting::Setting,
    telemetry::TelemetrySettings,
    verification::VerificationSettings,
};

/// Returns the description and the settings of each section.
pub(super) fn sections() -> [(&'static [&'static str], &'static [Setting]); 16] {
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
        (TelemetrySettings::ABOUT, TelemetrySettings::SETTINGS),
    ]
}

/// Returns every setting, in the order of the sections.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    sections().into_iter().flat_map(|(_, settings)| settings)
}
