//! `[callers]`

use std::path::PathBuf;

use super::setting::section;

section! {
    /// Which services may call.
    CallersSettings in "callers" {
        /// The file that names each caller, what proves it, which methods it may call and which fields of a user it may see
        /// (TOML; docs/CALLERS.md). Read again within 2 s of a change, and on SIGHUP; one that is faulty changes nothing. Unset,
        /// whoever reaches the port may do everything: for loopback only, or with `callers.insecure-none`.
        file: Option<PathBuf> = "",
        /// Allows an address that is not loopback without `callers.file`: whoever reaches it may read, change and take over every user:
        /// it is given mailed tokens, too.
        insecure_none: bool = "false",
    }
}
