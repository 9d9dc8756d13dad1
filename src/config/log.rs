//! `[log]`

use super::{
    setting::section,
    value::{LogFormat, LogLevel},
};

section! {
    /// Logs, which are written to standard error.
    LogSettings in "log" {
        /// The log level: `error`, `warn`, `info`, `debug` or `trace`. A single module can have its own, as
        /// in `info,kairos_identity::mail=debug`.
        level: LogLevel = "info",
        /// `text` for operators, or `json` (one object per line) for programs.
        format: LogFormat = "text",
    }
}
