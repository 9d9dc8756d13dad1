//! `[http]` and `[pages]`

use std::{net::SocketAddr, path::PathBuf};

use super::{
    setting::section,
    value::{Count, Span},
};

section! {
    /// The HTTP port: the public keys at `/.well-known/jwks.json`, and the pages. Most often a reverse proxy stands before it. It speaks TLS with
    /// the certificate of `[server]` where there is one.
    HttpSettings in "http" {
        /// Where to listen; empty for no such port. An address that is not loopback needs TLS, or `server.insecure-plaintext`.
        listen: Option<SocketAddr> = "127.0.0.1:50080",
        /// How many connections may be open; more wait to be accepted.
        connections_max: Count<1, 1_000_000> = "1000",
        /// How many of them one address may have open; another is closed at once. A reverse proxy is one address.
        connections_per_peer_max: Count<1, 1_000_000> = "200",
        /// How long a connection may take to send the head of a request, or be silent between two.
        head_timeout: Span<100, 600_000> = "10s",
        /// After how long a connection takes no more requests.
        connection_age: Span<1_000, 604_800_000> = "5m",
    }
}

section! {
    /// The pages behind mailed links: to confirm an address, to choose a new password, to confirm a new address.
    PagesSettings in "pages" {
        /// Whether they are served. If not, `mail.public-base-url` is where yours are, which call `VerifyEmail`, `ResetPassword` and
        /// `ConfirmEmailChange`.
        enabled: bool = "true",
        /// A folder with templates of yours: a file replaces the one of its name in `templates/pages`, which says what it is given
        /// (docs/PAGES.md).
        templates: Option<PathBuf> = "",
    }
}
