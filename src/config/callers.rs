//! `[callers]`

use std::path::PathBuf;

use super::{section::section, setting::Flag};

section! {
    /// The services that may call this one.
    CallersSettings in "callers" {
        /// The callers file (TOML; docs/CALLERS.md): how each caller authenticates, which methods it may call
        /// and which fields of a user it may read. It is reloaded within 2 s of a change, and at once on
        /// SIGHUP; an invalid file changes nothing. If unset, every client that reaches the port has
        /// every right, which is allowed only on loopback or with `callers.insecure-none`.
        #[flag(Flag::of_serve(
            "callers", "FILE",
            "The callers file (TOML; docs/CALLERS.md): which services may call which methods; required \
             unless --listen is loopback",
        ))]
        file: Option<PathBuf> = "",
        /// Allows an address that is not loopback without `callers.file`. Every client that reaches the port
        /// can then read, change and take over every user, since it can also obtain mailed tokens.
        #[flag(Flag::switch_of_serve(
            "insecure-no-callers",
            "Allow an address that is not loopback without --callers: every client that reaches it can \
             read, change and take over every user",
        ))]
        insecure_none: bool = "false",
    }
}
