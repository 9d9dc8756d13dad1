//! Mails: from the outbox, through templates, to an SMTP server or a folder.
//!
//! What is to be mailed was decided and written by `accounts` and the store; here it is only sent: after the commit, at
//! least once, with one Message-ID over all attempts. No address, token or link is logged. Start at [`Outbox`].

mod attempt;
mod folder;
mod message;
mod outbox;
mod smtp;
mod templates;
mod transport;

pub use self::{
    message::compose,
    outbox::{Outbox, OutboxOptions},
    smtp::{Encryption, SmtpOptions},
    templates::{BadTemplate, MailValues, Templates, Words},
    transport::{MailError, Transport},
};
