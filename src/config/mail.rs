//! `[mail]`

use std::path::PathBuf;

use super::{
    hello_name::HelloName,
    mail_url::MailUrl,
    number::{Count, Span},
    public_url::PublicUrl,
    section::section,
    sender::Sender,
    setting::Flag,
    url_text::redacted,
};

section! {
    /// Outgoing mail, and the links in it.
    MailSettings in "mail" {
        /// Where mail is delivered: `smtp://user:password@host:port` (STARTTLS),
        /// `smtps://user:password@host:port` (TLS from the first byte), or `file:///folder` or
        /// `file://relative/folder`, where each mail becomes an `.eml` file.
        #[flag(Flag::of_serve(
            "mail-url", "URL",
            "Where mail is delivered: smtp://user:password@host:port (STARTTLS), \
             smtps://user:password@host:port (TLS) or file:///folder",
        ))]
        #[secret(redacted)]
        url: MailUrl = "file://data/mail",
        /// A file that contains `mail.url`, so that its password appears in no environment and no process
        /// list.
        url_file: Option<PathBuf> = "",
        /// The sender's address, optionally with a name.
        from: Sender = "Kairos <no-reply@kairos.localhost>",
        /// The name that EHLO introduces this service with: a host name, or an address literal such as
        /// `[192.0.2.1]`. If unset, the host of `mail.from`. Some servers refuse a name that does not resolve
        /// to the address of the client.
        hello_name: Option<HelloName> = "",
        /// The URL that mailed links begin with. Users open `<public-base-url>/verify?token=TOKEN`,
        /// `/reset-password?token=TOKEN`, `/confirm-email?token=TOKEN` and `/undo-email-change?token=TOKEN`.
        /// It must lead to the pages of `[pages]`, as they are reached from outside, or to your own pages. It
        /// is never taken from a request.
        #[flag(Flag::of_serve(
            "public-base-url", "URL",
            "The URL that mailed links begin with, as in URL/verify?token=TOKEN",
        ))]
        public_base_url: PublicUrl = "http://localhost:50080",
        /// Allows SMTP without encryption to a host that is not loopback. An attacker who reads a mail in
        /// transit can use its link.
        #[flag(Flag::switch_of_serve(
            "insecure-mail-plaintext",
            "Allow SMTP without encryption to a host that is not loopback: an attacker who reads a mail \
             in transit can use its link",
        ))]
        insecure_plaintext: bool = "false",
        /// Time limit of one delivery attempt.
        timeout: Span<100, 600_000> = "30s",
        /// The wait after the first failed attempt. Each further failure doubles it. Every wait varies at
        /// random by up to 20 %.
        retry_first: Span<10, 86_400_000> = "30s",
        /// The longest wait between two attempts, before the random variation. Attempts end when the link in
        /// the mail expires, or after 3 days if the mail has no link.
        retry_max: Span<10, 86_400_000> = "30m",
        /// Interval at which the outbox is checked for mails that are due, or whose lease another instance
        /// has let expire.
        poll_interval: Span<10, 600_000> = "1s",
        /// Maximum number of mails to one address within 24 hours, so that no mailbox is flooded. Three sorts
        /// of mails are counted separately, so that others cannot use up the mails that the owner needs:
        /// those that any client can cause by entering the address (notices of attempted registrations, links
        /// to confirm a new email), the links that any client may request for an account (to verify its
        /// email, to reset its password), and those about changes of an account. A mail beyond it waits until
        /// its interval has passed since the last one: 24 hours divided by this number, or the lifetime of
        /// its link if that is shorter. So others can delay the mails that the owner needs, but never stop
        /// them. While a link may have to wait, the links that were mailed before stay valid.
        daily_per_address_max: Count<1, 10_000> = "30",
        /// Maximum number of mails within 24 hours, so that a flood of registrations does not ruin the
        /// reputation of the sender's domain. A mail beyond it waits until 24 hours after the first of them.
        /// A quarter is kept for mails to users, such as password resets: mails that verify an email, confirm
        /// a new one or tell of an attempted registration wait beyond three quarters. Choose a value above
        /// the number of mails on your busiest day.
        daily_total_max: Count<1, 100_000_000> = "20000",
        /// How long mails stay in the outbox table after they were sent or abandoned.
        keep_finished: Span<60_000, 31_536_000_000> = "7d",
    }
}
