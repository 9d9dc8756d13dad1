//! `[log]`

use super::{
    log_value::{LogFormat, LogLevel},
    section::section,
    setting::Flag,
};

section! {
    /// Logs, which are written to standard error.
    LogSettings in "log" {
        /// The log level: `off`, `error`, `warn`, `info`, `debug` or `trace`. A single module can have its
        /// own, as in `info,kairos_identity::mail=debug`. Without a level for the others, they log nothing.
        /// Libraries log errors only.
        #[flag(Flag::of_every_command(
            "log-level", "LEVEL",
            "The log level: error, warn, info, debug or trace",
        ))]
        level: LogLevel = "info",
        /// `text` for operators, or `json` (one object per line) for programs.
        #[flag(Flag::of_every_command("log-format", "FORMAT", "The log format: text or json"))]
        format: LogFormat = "text",
    }
}
