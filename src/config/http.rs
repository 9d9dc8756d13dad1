//! `[http]` and `[pages]`

use std::{net::SocketAddr, path::PathBuf};

use super::{
    contact::SecurityContact,
    number::{Count, Span},
    section::section,
    setting::Flag,
};

section! {
    /// The HTTP port, which serves the public keys at `/.well-known/jwks.json`, the probes `/livez` and
    /// `/readyz`, and the pages. It usually runs behind a reverse proxy. If `[server]` has a certificate,
    /// this port uses TLS with it.
    HttpSettings in "http" {
        /// The address to listen on; empty disables the port. An address that is not loopback needs TLS or
        /// `server.insecure-plaintext`.
        #[flag(Flag::of_serve(
            "http-listen", "ADDR",
            "The HTTP address of the pages behind mailed links and of the public keys; empty disables \
             it",
        ))]
        listen: Option<SocketAddr> = "127.0.0.1:50080",
        /// Maximum number of open connections. When it is reached, a new connection replaces the oldest one
        /// of the peer that has the most. A new connection of that peer waits instead.
        connections_max: Count<1, 1_000_000> = "1000",
        /// Maximum number of open connections of one peer; a further one is closed at once. A peer is an IPv4
        /// address or an IPv6 network (/64). A reverse proxy is one peer. A 64th more may be open for a short
        /// time: the oldest of them is closed for the next one after 1 s.
        connections_per_peer_max: Count<1, 1_000_000> = "200",
        /// Time limit for the head of a request. It also limits how long a connection may be idle between two
        /// requests.
        head_timeout: Span<100, 600_000> = "10s",
        /// Age at which a connection accepts no more requests.
        connection_age: Span<1_000, 604_800_000> = "5m",
        /// The address for reports of flaws of your deployment: a `mailto:` or `https:` URL. The port
        /// serves it at `/.well-known/security.txt` (RFC 9116). If unset, there is no such file.
        security_contact: Option<SecurityContact> = "",
    }
}

section! {
    /// The pages behind mailed links: verify an email, choose a new password, confirm a new email, undo an
    /// email change.
    PagesSettings in "pages" {
        /// Whether the service serves the pages. If not, `mail.public-base-url` must lead to your own pages,
        /// which call `VerifyEmail`, `ResetPassword`, `ConfirmEmailChange` and `UndoEmailChange`.
        enabled: bool = "true",
        /// A folder with your own templates. Each file replaces the built-in template of the same name in
        /// `templates/pages`; docs/PAGES.md lists the variables of each template. The folder is read at
        /// startup only.
        templates: Option<PathBuf> = "",
    }
}
