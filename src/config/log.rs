//! `[log]`

use super::{
    setting::section,
    value::{LogFormat, LogLevel},
};

section! {
    /// Logs, which go to standard error.
    LogSettings in "log" {
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, also for a part alone, as in
        /// `info,kairos_identity::mail=debug`.
        level: LogLevel = "info",
        /// `text` for people, `json` (one object a line) for machines.
        format: LogFormat = "text",
    }
}
