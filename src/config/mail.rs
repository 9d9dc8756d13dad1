//! `[mail]`

use std::path::PathBuf;

use super::{
    mail_url::MailUrl,
    setting::section,
    value::{PublicUrl, Sender, Span},
};

section! {
    /// Mails and the links in them.
    MailSettings in "mail" {
        /// Where mails go: `smtp://user:password@host:port` (STARTTLS), `smtps://…` (TLS from the first byte), or
        /// `file:///folder` and `file://relative/folder`, where each mail becomes an `.eml` file.
        url: MailUrl = "file://data/mail",
        /// A file that holds the URL, so that its password is in no environment and no process list.
        url_file: Option<PathBuf> = "",
        /// The sender.
        from: Sender = "Kairos <no-reply@kairos.localhost>",
        /// The beginning of the links: people open `<public-base-url>/verify?token=…`, `/reset-password?token=…` and
        /// `/confirm-email?token=…`: where the pages of `[pages]` are seen from outside, or your own. Never taken from a request.
        public_base_url: PublicUrl = "http://localhost:50080",
        /// Allows SMTP without encryption to a host that is not loopback: whoever sees the mail can use its link.
        insecure_plaintext: bool = "false",
        /// How long one attempt to send may take.
        timeout: Span<100, 600_000> = "30s",
        /// How long after a failed attempt the next one is made; doubles each time, ±20 % by chance.
        retry_first: Span<10, 86_400_000> = "30s",
        /// The longest wait between two attempts; they end when the link expires.
        retry_max: Span<10, 86_400_000> = "30m",
        /// How often the outbox is looked into for mails whose time has come, or which another instance left.
        poll_interval: Span<10, 600_000> = "1s",
        /// How long mails that were sent or given up stay in the outbox.
        keep_finished: Span<60_000, 31_536_000_000> = "7d",
    }
}
