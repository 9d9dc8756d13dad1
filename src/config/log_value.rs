//! The level and the format of the log.

use tracing_subscriber::EnvFilter;

use super::value::Value;

/// Log directives in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Returns the directives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogLevel {
    fn expects() -> String {
        "off, error, warn, info, debug or trace, or directives such as info,kairos_identity::mail=debug"
            .to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // EnvFilter accepts any word as the name of a target, so a misspelt level would pass unnoticed.
        let are_levels = text.split(',').all(|directive| {
            LEVELS.contains(&directive.rsplit('=').next().unwrap_or_default().trim().to_lowercase().as_str())
        });
        (are_levels && EnvFilter::try_new(text).is_ok()).then(|| Self(text.to_owned()))
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for operators.
    Text,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    fn expects() -> String {
        "text or json".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_log_level_is_refused() {
        assert!(LogLevel::parse("info,kairos_identity::mail=debug").is_some());
        for text in ["", "inof", "info,", "kairos=loud"] {
            assert_eq!(LogLevel::parse(text), None, "{text}");
        }
    }
}
