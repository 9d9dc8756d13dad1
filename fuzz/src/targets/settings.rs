//! Parses arbitrary texts as the values of settings from files, environment variables and flags, and displays
//! database URLs.

use kairos_identity::{
    config::{Bytes, Count, DatabaseUrl, LogLevel, MailUrl, PublicUrl, Sender, Span, Value},
    postgres_url::PostgresUrl,
};

use super::super::input;

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some(text) = input::<&str>(bytes) else { return };
    let _ = Count::<1, 100>::parse(text);
    let _ = Bytes::<1, 1_048_576>::parse(text);
    let _ = Span::<0, 86_400_000>::parse(text);
    let _ = LogLevel::parse(text);
    let _ = PublicUrl::parse(text);
    let _ = Sender::parse(text);
    let _ = MailUrl::parse(text);
    if let Some(url) = DatabaseUrl::parse(text) {
        let _ = url.to_string();
    }
    let _ = text.parse::<PostgresUrl>();
}
